"""Moving from other embedders: which calls of a code base can move, and whether a stored index can stay.

Reads programs as syntax trees and stores through their own interfaces; never runs, imports, unpickles or writes them.
Imports no torch, no compiler and no SDK: a server is asked over HTTP.
"""

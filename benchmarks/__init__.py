"""Side-by-side measurements of the served system, of what it is made of, and of its peers; never part of the tests."""

"""What a precision does to the order of answers: items to ask about, float32's answers, and how many of them stay.

Measures only: what is published by them is the compiler's. Nothing here imports torch.
"""

"""The routes, one module per noun. A route parses, calls one function of `services`, and
answers.
"""

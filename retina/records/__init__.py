"""Files that this package writes and reads back, checked when they are read; what was damaged or edited is refused.

Each reader reads a file once and checks it whole, so that what comes after needs no checks of its own. A message names
the file, the line and column or the key, the value and what is allowed, and on its last line the remedy.
"""

"""Synthetic fundus photographs of known grade, with which every command can be tried without data.

They are not a model of the disease, but show enough of the lesions and of a camera's effects that a network can and has
to learn the lesions. `draw` writes a folder in the layout of EyePACS, `draw_photograph` draws one photograph, and
`assign_grades` chooses the grades.
"""

from retina.data.synthetic.draw import assign_grades, draw
from retina.data.synthetic.photograph import draw_photograph

__all__ = ["assign_grades", "draw", "draw_photograph"]

"""Draws fundus photographs of known grade, so that every command can be tried without data.

Not a model of the disease: enough of its look, and of what a camera does, that a network has to learn the field's
lesions and can. `draw` writes a folder in the layout of EyePACS, `photograph` draws one, `grades` says who has what.
"""

from retina.data.synthetic.draw import draw, grades
from retina.data.synthetic.photograph import photograph

__all__ = ["draw", "grades", "photograph"]

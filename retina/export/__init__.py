"""The best model as one folder of plain files that runs elsewhere: `export` writes it, `load` reads it."""

from retina.export.folder import Exported, load
from retina.export.write import export

__all__ = ["Exported", "export", "load"]

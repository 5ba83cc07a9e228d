"""Images with labels, wherever they come from."""

from dia_models.data.images import StoredImages
from dia_models.data.python_images import PythonImages

ImageSource = StoredImages | PythonImages

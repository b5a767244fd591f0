"""Three small networks, trained from scratch on the corpus users' text at first use and cached.

They stand in for pretrained checkpoints where nothing can be downloaded: a cloud model that does
the task and follows the augmentation prompt, a device model about six times smaller, and an NLI
classifier. The result is three folders in Hugging Face layout, which the rest of the project loads
like any other checkpoint.
"""

from models.miniature.build import build, is_built

__all__ = ["build", "is_built"]

"""``torch.cuda.streams``."""
from ..runtime.cuda.device import Event, ExternalStream, Stream

__all__ = ["Event", "ExternalStream", "Stream"]

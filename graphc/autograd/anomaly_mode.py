"""``torch.autograd.anomaly_mode``: the modes by that module's name."""
from .mode import detect_anomaly, set_detect_anomaly

__all__ = ["detect_anomaly", "set_detect_anomaly"]

"""``torch.utils.model_zoo``: the older name of part of :mod:`graphc.hub`."""
from ..hub import load_state_dict_from_url as load_url

__all__ = ["load_url"]

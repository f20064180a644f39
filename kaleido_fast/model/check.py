"""What must hold between the settings of the model, its tasks and the pictures and texts it is given."""

from kaleido_fast.data.settings import DataSettings
from kaleido_fast.kernels.embed_inputs import EPS
from kaleido_fast.kernels.geometry import uneven_grids
from kaleido_fast.model.kaleido_tasks import check_kaleido_settings
from kaleido_fast.model.patch_encoders.build import check_patch_encoder
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings
from kaleido_fast.settings import check_sections


def check_model(model: ModelSettings, kaleido: KaleidoSettings, data: DataSettings) -> None:
    """Refuse settings from which no model can be built (ValueError, naming the keys)."""
    check_sections(model=model, kaleido=kaleido, data=data)
    uneven = uneven_grids(data.image_size, kaleido.grids)
    if uneven:
        raise ValueError(f"data.image_size={data.image_size} must be a multiple of every grid, found grids {uneven}; 120 and "
                         "240 fit 1..5")
    if data.max_tokens > model.max_positions:
        raise ValueError(f"data.max_tokens={data.max_tokens} must lie in 3..model.max_positions={model.max_positions}")
    if model.layer_norm_eps != EPS:
        raise ValueError(f"model.layer_norm_eps={model.layer_norm_eps:g} must be {EPS:g}, BERT's: the operation embed has no "
                         "other")
    check_kaleido_settings(kaleido)
    check_patch_encoder(model, kaleido)

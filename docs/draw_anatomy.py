"""Draw docs/anatomy.png from networks that ran: `python docs/draw_anatomy.py`."""

from pathlib import Path

import torch

from dia_analysis import measure_correlation
from dia_analysis.results.style import save_figure
from dia_models import create_model
from figures import attention_anatomy

NETWORKS = {
    "cifar_resnet29_se: one module per layer": "cifar_resnet29_se",
    "cifar_resnet29_dia_se: one module per stage": "cifar_resnet29_dia_se",
    "cifar_resnet164_dia_lstm: one LSTM per stage, its state carried from call to call": "cifar_resnet164_dia_lstm",
}

if __name__ == "__main__":
    images = torch.randn(2, 3, 32, 32)
    results = {title: measure_correlation(create_model(name), [images]) for title, name in NETWORKS.items()}
    save_figure(attention_anatomy(results), Path(__file__).parent / "anatomy")

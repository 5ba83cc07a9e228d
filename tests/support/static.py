"""Small networks whose gates and norms do something, and what they give with their gates' means."""

import torch
from torch import nn


def batches(count=6, size=8, classes=4, dtype=torch.float32):
    images = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))
    return [(images.to(dtype), torch.arange(count) % classes)]


def settled(model, size=8):
    """With statistics of some images, and weights of norms and gates that are all different."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or any(part in name for part in ("se.", "attention", "excitation")):
                parameter += 0.5 * torch.rand_like(parameter)
            if name == "se.fc.weight":
                parameter *= 20  # so that gates differ from image to image
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = None
                module.reset_running_stats()
        model.train()(batches(16, size)[0][0])
    return model.eval()


def with_means(model, names, images, every=None):
    """What a network gives where the outputs of these modules are their means over other images; found by hooks."""
    seen = {name: [] for name in names}
    hooks = [model.get_submodule(n).register_forward_hook(lambda _, __, out, n=n: seen[n].append(out)) for n in names]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    means = {name: [out.double().mean(0, keepdim=True) for out in outs] for name, outs in seen.items()}
    calls = dict.fromkeys(names, -1)

    def mean(name, out):
        calls[name] += 1
        wanted = every is None or (name, calls[name]) in every
        return means[name][calls[name]].to(out).expand_as(out) if wanted else out

    hooks = [model.get_submodule(n).register_forward_hook(lambda _, __, out, n=n: mean(n, out)) for n in names]
    with torch.no_grad():
        outputs = model(images)
    for hook in hooks:
        hook.remove()
    return outputs

"""How initial weights are scaled."""

from __future__ import annotations

from gradlab.spec.named import Choice, table

INITS: dict[str, Choice] = table(
    Choice("xavier_normal", "N(0, 2/(fan_in+fan_out)); alias xavier", "Glorot & Bengio 2010"),
    Choice("xavier_uniform", "uniform of variance 2/(fan_in+fan_out)", "Glorot & Bengio 2010"),
    Choice("he_normal", "N(0, 2/fan_in), whatever the slope; alias he", "He et al. 2015, arXiv:1502.01852"),
    Choice("he_uniform", "uniform of variance 2/fan_in", "He et al. 2015, arXiv:1502.01852"),
    Choice("lecun_normal", "N(0, 1/fan_in); alias lecun", "LeCun et al. 1998, Efficient BackProp"),
    Choice("lecun_uniform", "uniform of variance 1/fan_in", "LeCun et al. 1998, Efficient BackProp"),
    Choice(
        "orthogonal",
        "a random orthogonal matrix (semi-orthogonal where not square)",
        "Saxe et al. 2013, arXiv:1312.6120",
    ),
    Choice(
        "torch_default",
        "uniform of variance 1/(3 fan_in), biases too, as torch.nn.Linear",
        "PyTorch documentation, torch.nn.Linear",
    ),
    Choice("zeros", "every weight 0: no symmetry is broken", "Goodfellow et al. 2016, Deep Learning, section 8.4"),
)

"""What a verdict comes from, as far as the numbers tell: the cause, how it shows, and the thing to change.

A verdict says what is seen; several causes can lead to it. They are asked in order (`asked`), the certain ones first,
and the first that the numbers bear out is named.
"""

from __future__ import annotations

from dataclasses import replace

from gradlab.diagnose.asked import ASKED
from gradlab.diagnose.case import Case
from gradlab.diagnose.history import History
from gradlab.diagnose.thresholds import Limits
from gradlab.diagnose.verdict import Cause, Verdict
from gradlab.spec.named import Choice, table

CAUSES = table(
    Choice("input_not_finite", "mend the inputs: NaN or infinity goes through every layer", "IEEE 754-2019"),
    Choice(
        "all_masked", "let every row of attention see something, itself if nothing else", "Vaswani et al. 2017, 3.2.3"
    ),
    Choice(
        "infinite_slope", "add a small number under the root, the norm or the logarithm", "torch.autograd: sqrt at 0"
    ),
    Choice("input_scale", "standardise the inputs (data.standardise, data.input_scale)", "LeCun et al. 1998, 4.3"),
    Choice("input_offset", "subtract the mean of the inputs", "LeCun et al. 1998, 4.3"),
    Choice("target_scale", "standardise the targets (data.target_scale)", "LeCun et al. 1998, 4.3"),
    Choice(
        "labels", "make the targets fit the loss, the output and their inputs", "Zhang et al. 2021, arXiv:2103.03155"
    ),
    Choice(
        "accumulated", "set the gradients to zero before each way back (zero_grad)", "torch.optim.Optimizer.zero_grad"
    ),
    Choice("order", "shuffle the samples, anew in each epoch", "LeCun et al. 1998, 4.2"),
    Choice("sign", "turn the sign of the loss: descent makes it smaller", "Humbatova et al. 2020, arXiv:1910.11015"),
    Choice("penalty", "lower the factor of what is added to the loss", "Goodfellow et al. 2016, section 7.1"),
    Choice("dropout", "drop fewer units", "Srivastava et al. 2014, figure 9"),
    Choice("first_loss", "initialise the output layer smaller, so that the first loss is ln C", "Karpathy 2019"),
    Choice("softmax_twice", "give cross-entropy the logits: it takes the softmax itself", "torch.nn.CrossEntropyLoss"),
    Choice("log_probabilities", "logits into cross_entropy, log_softmax into nll_loss", "torch.nn.NLLLoss"),
    Choice("activation_on_logits", "take the activation off the output layer", "Goodfellow et al. 2016, 6.2.2"),
    Choice("one_unit", "one unit takes a sigmoid and binary cross-entropy", "Goodfellow et al. 2016, 6.2.2"),
    Choice("missing_activation", "put an activation between the layers", "Goodfellow et al. 2016, section 6.1"),
    Choice("equal_weights", "draw the weights: equal units get equal gradients", "Goodfellow et al. 2016, section 8.4"),
    Choice("rank", "add skip connections or a norm, or widen what everything passes", "Dong et al. 2021"),
    Choice("frozen", "let the frozen parameters train (requires_grad)", "torch.nn.Module.requires_grad_"),
    Choice("cut", "take the detach, or the no_grad, off the way back", "torch.Tensor.detach"),
    Choice("idle", "open the gate that is zero, or take the part out", "Shazeer et al. 2017, arXiv:1701.06538"),
    Choice("dead_units", "lower the learning rate, start biases at 0, or take leaky_relu", "Lu et al. 2019"),
    Choice("constant_output", "look at the biases and the output activation: the input does not reach it", "ours"),
    Choice("one_answer", "start the weights smaller: one output leads for every input", "Sabour et al. 2017"),
    Choice("norm_of_one", "normalise over more than one number", "Ioffe & Szegedy 2015, arXiv:1502.03167"),
    Choice("broken_layer", "look at the weights of that layer: they are of another scale than the others", "ours"),
    Choice("init", "initialise by He (ReLU) or Xavier (tanh): model.init, model.gain", "He et al. 2015"),
    Choice("activation", "take an activation of slope 1 at 0 (tanh, relu, gelu)", "Glorot & Bengio 2010"),
    Choice("depth", "fewer layers, a residual stream or a norm", "Schoenholz et al. 2017, arXiv:1611.01232"),
    Choice("growth", "scale the branches by 1/sqrt(L), or add a norm", "Zhang et al. 2019, arXiv:1901.09321"),
    Choice("normalised_growth", "warm up: it explodes at the start alone", "Yang et al. 2019, arXiv:1902.08129"),
    Choice("recurrence", "orthogonal or identity recurrence, gates, clipping, or shorter sequences", "Pascanu 2013"),
    Choice("gates", "start gates open, the forget gate at a bias of 1", "Jozefowicz et al. 2015"),
    Choice("attention", "scale the logits by 1/sqrt(d), or normalise queries and keys", "Vaswani et al. 2017"),
    Choice("learning_rate_high", "lower the learning rate", "Cohen et al. 2021, arXiv:2103.00065"),
    Choice("learning_rate_low", "raise the learning rate", "Bengio 2012, arXiv:1206.5533, section 3.1.1"),
    Choice("momentum", "lower the momentum, or the learning rate by 1 - momentum", "Polyak 1964"),
    Choice(
        "no_update",
        "give these parameters to an optimizer that makes steps, at a rate above 0; layers go into an nn.ModuleList",
        "torch.optim.Optimizer.step",
    ),
    Choice("weight_decay", "lower the weight decay", "Loshchilov & Hutter 2019, arXiv:1711.05101"),
    Choice("clip", "raise the threshold towards the usual norm of the gradient", "Pascanu et al. 2013, 3.2"),
    Choice("underflow_half", "scale the loss, or train in bfloat16 or float32", "Micikevicius et al. 2018"),
    Choice("overflow_half", "train in bfloat16 or float32, or with smaller signals", "IEEE 754-2019"),
    Choice("eps_half", "eps 1e-4, or single copies of the weights", "torch issues on Adam with half parameters"),
    Choice("rounding", "keep single copies of the weights, or round by chance", "Zamirai et al. 2020"),
    Choice("clip_scaled", "call scaler.unscale_(optimizer) before clipping", "torch.amp, scaled gradients"),
    Choice("loss_scale", "lower the loss scale, or make it dynamic", "Micikevicius et al. 2018, arXiv:1710.03740"),
    Choice("eps", "lower eps of the optimizer below the gradients", "Kingma & Ba 2015, arXiv:1412.6980"),
)
"""Every cause: what to change, and after whom."""


def with_cause(verdict: Verdict, history: History, limits: Limits) -> Verdict:
    """The verdict with the first cause that the numbers bear out; as it is where none does."""
    given = verdict.evidence.get("cause")
    if isinstance(given, str):
        return replace(verdict, cause=_cause(given, verdict.sentence.split(": ", 1)[1]))
    for name, shows in ASKED.get(verdict.name, ()):
        if (words := shows(Case(verdict, history, limits))) is not None:
            return replace(verdict, cause=_cause(name, words))
    return verdict


def _cause(name: str, words: str) -> Cause:
    return Cause(name, words, CAUSES[name].summary)

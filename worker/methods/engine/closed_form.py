"""The closed form: names in, one affine map for each tower out.

    Q    [d, r]   orthonormal basis of the forgotten names' directions: for each name y the first
    right singular vector of
                  [t(y, k) - mean_c t(c, k)]_k over templates k, c being the labels that stay
    C    [d, d]   second moment of the texts of all that stays
    r    [d]      reader: of all vectors that read 1 of every forgotten name (mean over templates)
    the one of least r^T C r

    image tower   v <- v - Q (Q^T v) - o,     o = 0.085 E|v| r_image
    text tower    t <- t + 2.1 z <r_text, t>,   z: the direction in which images vary least

Each edit forgets alone, and they do not undo one another. What an image shows of the name's
direction goes (the centred null space of Mishra et al., arXiv 2512.14137). That is not enough
for wordings nobody thought of, whose texts lie along other directions as well; so the same
offset for every image lowers the logits of whatever says the name, which is what r reads (a
minimum-variance reader, as in beamforming: it reads next to nothing of what stays). Texts of the
name are turned to a direction that no image has, so that the original image tower, put back,
does not find them either; other texts stay where they are. r_image reads of z as much as makes
turned texts lose what unturned ones do; r_text reads nothing of it."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from worker.methods.engine.last_layers import image_projection, transform_images, transform_texts
from worker.methods.engine.vocabulary import Texts, texts_of
from worker.methods.frame import Erasure

RIDGE = 3e-4
"""Share of the mean eigenvalue of C that is added to all of them."""
OFFSET = 0.085
"""By how much the cosine of every image with a forgotten name falls: more costs other data sets,
less leaves wordings alive.
"""
PUSH = 2.1
"""How far the text of a forgotten name goes towards z, in its own length: its cosines with
images fall to less than a half.
"""
SPREAD = 0.1
"""Weight, in C of the image reader, of how a name's texts differ between wordings: so it reads
about the same of all of them.
"""
BLUR = 1 / 32
"""Of the image's side: the deviation of the blur under which lengths are measured, too."""
OWN_WORDING = 6.0
"""Weight, in C, of the common names in the request's own wording: so it is that other label sets
are asked for.
"""
FEW_LABELS = 4
"""With fewer that stay, the common names help to say where the centre of the name space is."""
SMALLEST_PART = 0.35
"""A name whose direction has less than this outside of those of the names before it is covered
by them, as many synonyms are.
"""


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """Q, and the reader for each tower."""

    basis: Tensor
    """[d, r], orthonormal columns."""
    image_reader: Tensor
    """[d]"""
    text_reader: Tensor
    """[d]"""


def erase_names(erasure: Erasure, samples: Tensor) -> dict[str, int | bool]:
    """Edit both towers in place and return what the report says of it.

    Args:
        erasure: its labels and names are used, no image.
        samples: synthetic samples [N, 3, H, W] of what stays, for the usual length of an image
            embedding.

    Raises:
        JobFailure: `method_failed`: a tower does not end in a linear map that we know.
    """
    model = erasure.clip.model
    null = quiet_direction(image_projection(erasure.original.model))
    form = closed_form(texts_of(erasure, erasure.original), null)
    identity = torch.eye(len(null), device=null.device)
    offset = -OFFSET * usual_length(erasure, samples) * form.image_reader
    constant = transform_images(model, identity - form.basis @ form.basis.T, offset)
    transform_texts(model, identity + PUSH * torch.outer(null, form.text_reader))
    return {"rank": form.basis.shape[1], "offset": constant}


def closed_form(texts: Texts, null: Tensor) -> ClosedForm:
    """Return Q and the readers; `null` [d] is z."""
    shared = texts.labels.shape[1]
    centre = texts.labels.mean(dim=0)
    missing = max(0, FEW_LABELS - len(texts.labels)) / FEW_LABELS
    centre = (1 - missing) * centre + missing * texts.common.mean(dim=(0, 1))
    kept = independent([first_direction(name[:shared] - centre) for name in texts.forgotten])
    names = texts.forgotten[kept.positions]
    means = names.mean(dim=1)
    moment = second_moment(texts)
    spread = (names - means[:, None]).flatten(0, 1)
    turned = (math.hypot(1, PUSH) - 1) / PUSH
    return ClosedForm(
        basis=torch.linalg.qr(kept.directions).Q,
        image_reader=reader_of(
            means, null, turned, moment + SPREAD * spread.T @ spread / len(spread)
        ),
        text_reader=reader_of(means, null, 0.0, moment),
    )


def first_direction(offsets: Tensor) -> Tensor:
    """Return the unit vector [d] along which offsets [K, d] are largest, pointing to their side."""
    _, _, right = torch.linalg.svd(offsets.float(), full_matrices=False)
    direction: Tensor = F.normalize(right[0], dim=0)
    return direction if (offsets @ direction).mean() > 0 else -direction


class Independent(NamedTuple):
    """Directions that do not cover one another, and which they are."""

    directions: Tensor
    """[d, r], unit columns."""
    positions: list[int]


def independent(directions: list[Tensor]) -> Independent:
    """Return the unit vectors [d] that are not covered by those before them."""
    kept: list[int] = []
    for i, direction in enumerate(directions):
        if kept:
            basis = torch.linalg.qr(torch.stack([directions[j] for j in kept], dim=1)).Q
            if (direction - basis @ (basis.T @ direction)).norm() < SMALLEST_PART:
                continue
        kept.append(i)
    return Independent(torch.stack([directions[i] for i in kept], dim=1), kept)


def second_moment(texts: Texts) -> Tensor:
    """Return C [d, d] of all that stays: labels and common names count the same, however many
    they are.
    """
    weighted = (
        (1.0, texts.labels[:, 0]),
        (1.0, texts.labels.flatten(0, 1)),
        (OWN_WORDING, texts.common[:, 0]),
        (1.0, texts.common.flatten(0, 1)),
    )
    parts = [weight * part.T @ part / len(part) for weight, part in weighted]
    return torch.stack(parts).sum(dim=0) / sum(weight for weight, _ in weighted)


def reader_of(means: Tensor, null: Tensor, of_null: float, moment: Tensor) -> Tensor:
    """Return of all r [d] that read 1 of each name's mean text and `of_null` of z that of least r^T
    C r.

    r = C^-1 G (G^T C^-1 G)^-1 b; the columns of G are the `means` [r, d] and z = `null` [d], C
    is `moment` [d, d] and a ridge."""
    wanted = torch.ones(len(means) + 1, device=means.device)
    wanted[-1] = of_null
    read = torch.cat([means, null[None]])
    ridge = RIDGE * moment.diagonal().mean() * torch.eye(len(moment), device=moment.device)
    whitened = torch.linalg.solve(moment + ridge, read.T)
    reader: Tensor = whitened @ torch.linalg.solve(read @ whitened, wanted)
    return reader


def quiet_direction(projection: Tensor) -> Tensor:
    """Return the unit vector [d] along which a projection [width, d] gives least: its last right
    singular vector.
    """
    _, _, right = torch.linalg.svd(projection.float(), full_matrices=True)
    direction: Tensor = right[-1]
    return direction


@torch.no_grad()
def usual_length(erasure: Erasure, samples: Tensor) -> Tensor:
    """Return the mean norm of the original model's embeddings of images, before they are
    normalised.

    Taken of samples [N, 3, H, W], each mixed with the next one, half of them as they are and
    half blurred: samples are extreme, their mixtures less so; and the embeddings of a ResNet are
    about twice as long for sharp pictures as for blurred ones."""
    clip = erasure.original
    mixed = (samples + samples.roll(1, dims=0)).float() / 2
    sigma = clip.image_size * BLUR
    blurred = gaussian_blur(mixed[::2], [2 * round(2 * sigma) + 1] * 2, [sigma, sigma])
    with erasure.precision():
        parts = [
            clip.model.encode_image(part.to(clip.device))  # type: ignore[operator]
            for part in torch.cat([mixed[1::2], blurred]).split(64)
        ]
    length: Tensor = torch.cat(parts).float().norm(dim=-1).mean()
    return length

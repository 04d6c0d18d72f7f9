"""The closed form: names in, one linear map for each tower out.

    D    [d, r]   directions of the forgotten names y: first right singular vector of [t(y, k) - mean_c t(c, k)]_k over templates k
    C    [d, d]   second moment of the texts of all that stays, under all templates, plus a ridge
    W    [d, r]   readers: C^-1 D (D^T C^-1 D)^-1, so that W^T D = I, and W reads as little as can be of what stays

    image tower   v <- v - W (D^T v) - o,          o = 0.15 E|v| sum_i W_i / <W_i, t(y_i)>
    text tower    t <- t + 1.6 z sum_i <W_i, t> / <W_i, t(y_i)>,        z: the direction in which images vary least

Each edit forgets alone, and they do not undo one another. Of an image, the part along D goes; as it goes along W, the logits of
what stays remain (minimum variance under a linear constraint, as in a beamformer; W = D would be the centred null space of Mishra
et al., arXiv 2512.14137). The offset is the same for every image and lowers the logits of the forgotten names alone, under wordings
nobody thought of as well: how much a text says the name is what W reads. Texts of the name are turned to a direction that no image
has, so that the original image tower, put back, does not find them either; other texts stay where they are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from worker.clip.classifier import template_embeddings
from worker.methods.frame import Erasure
from worker.methods.synthetic.last_layers import image_projection, transform_images, transform_texts
from worker.methods.synthetic.vocabulary import COMMON_NAMES, TEMPLATES, common_embeddings, unrelated

RIDGE = 1e-3
"""Share of the mean eigenvalue of C that is added to all of them."""
OFFSET = 0.15
"""By how much the cosine of every image with a forgotten name falls: a few logits, and less than what tells labels apart."""
PUSH = 1.6
"""How far the text of a forgotten name goes towards z, in its own length: its cosines with images fall to about a half."""
FEW_LABELS = 4
"""With fewer that stay, the common names help to say where the centre of the name space is."""
SMALLEST_PART = 0.35
"""A name whose direction has less than this outside of those of the names before it is covered by them, as many synonyms are."""


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """D, W and how much of its name each reader reads."""

    directions: Tensor
    """[d, r], unit columns."""
    readers: Tensor
    """[d, r]: W_i . D_j = 1 if i = j, else 0."""
    readings: Tensor
    """[r]: mean of <W_i, t(y_i, k)> over templates."""

    @property
    def reader_sum(self) -> Tensor:
        """[d]: sum of W_i / reading_i, which reads 1 of each forgotten name."""
        return (self.readers / self.readings).sum(dim=1)


def erase_names(erasure: Erasure, samples: Tensor) -> dict[str, int | bool]:
    """Edit both towers in place and return what the report says of it.

    Args:
        erasure: its labels and names are used, no image.
        samples: synthetic samples [N, 3, H, W] of what stays, for the usual length of an image embedding.

    Raises:
        JobFailure: `method_failed`: a tower does not end in a linear map that we know.
    """
    model = erasure.clip.model
    null = quiet_direction(image_projection(erasure.original.model))
    form = closed_form(erasure, null)
    identity = torch.eye(len(null), device=null.device)
    length = usual_length(erasure, samples)
    offset = -OFFSET * length * form.reader_sum
    constant = transform_images(model, identity - form.readers @ form.directions.T, offset)
    transform_texts(model, identity + PUSH * torch.outer(null, form.reader_sum))
    return {"rank": form.directions.shape[1], "offset": constant}


def closed_form(erasure: Erasure, null: Tensor) -> ClosedForm:
    """Return D and W for the erasure's names; W reads nothing along `null` [d] either."""
    clip, target = erasure.original, erasure.request.target
    names = target.all_names()
    labels = [label for label in erasure.labels if label not in target.names()]
    taken = {name.lower() for name in (*names, *labels)}
    templates = tuple(dict.fromkeys((*target.templates, *TEMPLATES)))
    gone, stays = (template_embeddings(clip, part, templates) for part in (names, labels))
    common = common_embeddings(erasure, templates)[[name not in taken for name in COMMON_NAMES]]
    centre = (stays if len(labels) >= FEW_LABELS else torch.cat([stays, common])).mean(dim=0)
    kept = torch.cat([stays, common[unrelated(gone, common, centre)]])
    directions, covered = independent([first_direction(texts - centre) for texts in gone])
    moment = second_moment(torch.cat([kept.flatten(0, 1), null.expand(len(kept), -1)]))
    readers = readers_of(directions, moment)
    readings = torch.stack([(gone[i] @ readers[:, j]).mean() for j, i in enumerate(covered)])
    return ClosedForm(directions, readers, readings)


def first_direction(offsets: Tensor) -> Tensor:
    """Return the unit vector [d] along which offsets [K, d] are largest, pointing to their side."""
    _, _, right = torch.linalg.svd(offsets.float(), full_matrices=False)
    direction: Tensor = F.normalize(right[0], dim=0)
    return direction if (offsets @ direction).mean() > 0 else -direction


def independent(directions: list[Tensor]) -> tuple[Tensor, list[int]]:
    """Return the unit vectors that are not covered by those before them, as columns [d, r], and their positions."""
    kept: list[int] = []
    for i, direction in enumerate(directions):
        if kept:
            basis = torch.linalg.qr(torch.stack([directions[j] for j in kept], dim=1)).Q
            if (direction - basis @ (basis.T @ direction)).norm() < SMALLEST_PART:
                continue
        kept.append(i)
    return torch.stack([directions[i] for i in kept], dim=1), kept


def second_moment(texts: Tensor) -> Tensor:
    """Return C [d, d] of texts [N, d], its ridge added."""
    moment = texts.T @ texts / len(texts)
    return moment + RIDGE * moment.diagonal().mean() * torch.eye(len(moment), device=moment.device)


def readers_of(directions: Tensor, moment: Tensor) -> Tensor:
    """Return W = C^-1 D (D^T C^-1 D)^-1, [d, r]: of all W with W^T D = I the one of least W^T C W."""
    whitened = torch.linalg.solve(moment, directions)
    readers: Tensor = whitened @ torch.linalg.inv(directions.T @ whitened)
    return readers


def quiet_direction(projection: Tensor) -> Tensor:
    """Return the unit vector [d] along which a projection [width, d] gives least: its last right singular vector."""
    _, _, right = torch.linalg.svd(projection.float(), full_matrices=True)
    direction: Tensor = right[-1]
    return direction


@torch.no_grad()
def usual_length(erasure: Erasure, samples: Tensor) -> Tensor:
    """Return the mean norm of the original model's embeddings of images, before they are normalised.

    Taken of samples [N, 3, H, W], each mixed with the next one: samples are extreme, and their mixtures less so.
    """
    device = erasure.original.device
    mixed = (samples + samples.roll(1, dims=0)).float() / 2
    with erasure.precision():
        parts = [erasure.original.model.encode_image(part.to(device)) for part in mixed.split(64)]  # type: ignore[operator]
    length: Tensor = torch.cat(parts).float().norm(dim=-1).mean()
    return length

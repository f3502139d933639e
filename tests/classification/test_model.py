import pytest
import torch
import torch.nn.functional as F

from onebit.backbones.registry import MODELS
from onebit.classification.augmentation import BatchAugmentation
from onebit.classification.metrics import TopK
from onebit.classification.model import ImageClassifier
from onebit.classification.predictions import UNRANKED, ranks_of

MEAN, STD = (10.0, 20.0, 30.0), (2.0, 4.0, 5.0)


@pytest.fixture
def batch():
    """Every pixel of every image has another value, so that a crop can be recognized."""
    torch.manual_seed(0)
    images = torch.randint(1, 256, (64, 3, 8, 6), dtype=torch.uint8)
    return dict(inputs=images, labels=torch.arange(64) % 10)


def augment(batch, training=True, **options):
    augmentation = BatchAugmentation((0, 0, 0), (1, 1, 1), **options)
    result = augmentation(batch, training)
    assert torch.equal(result["labels"], batch["labels"])
    assert result["inputs"].shape == batch["inputs"].shape
    return result["inputs"]


def test_evaluation_only_normalizes(batch):
    augmentation = BatchAugmentation(MEAN, STD, padding=2, flip=True, cutout=4)
    images = augmentation(batch)["inputs"]
    for channel in range(3):
        expected = (batch["inputs"][:, channel].float() - MEAN[channel]) / STD[channel]
        assert torch.equal(images[:, channel], expected)


def test_crop_is_one_of_the_padded_images_windows(batch):
    images = augment(batch, padding=2)
    offsets = set()
    for image, source in zip(images, batch["inputs"].float(), strict=True):
        padded = F.pad(source, [2] * 4)
        windows = {(top, left): padded[:, top : top + 8, left : left + 6] for top in range(5) for left in range(5)}
        (found,) = [at for at, window in windows.items() if torch.equal(window, image)]
        offsets.add(found)
    assert {top for top, _ in offsets} == {left for _, left in offsets} == set(range(5))
    assert len(offsets) > 15  # both are drawn on their own, and for every image


def test_flip_turns_about_half_of_the_images(batch):
    images = augment(batch, flip=True)
    flipped = 0
    for image, source in zip(images, batch["inputs"].float(), strict=True):
        turned = torch.equal(image, source.flip(2))
        assert turned or torch.equal(image, source)
        flipped += turned
    assert 16 < flipped < 48


@pytest.mark.parametrize("side", [3, 4])
def test_cutout_sets_one_square_to_the_mean(batch, side):
    images = augment(batch, cutout=side)
    areas = set()
    for image, source in zip(images, batch["inputs"].float(), strict=True):
        cut = (image == 0).all(0)
        assert torch.equal(image[:, ~cut], source[:, ~cut])
        rows, columns = cut.any(1).nonzero().ravel(), cut.any(0).nonzero().ravel()
        assert cut[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        # Squares whose centre lies near the border reach over it.
        for found, size in ((rows, 8), (columns, 6)):
            assert len(found) == side or found[0] == 0 or found[-1] == size - 1
            assert side // 2 <= len(found) <= side
        areas.add(int(cut.sum()))
    assert max(areas) == side * side
    assert len(areas) > 2


def test_cutout_leaves_the_mean_behind(batch):
    images = BatchAugmentation(MEAN, STD, cutout=4)(batch, True)["inputs"]
    assert (images == 0).all(1).flatten(1).any(1).all()


def test_augmentation_follows_the_seed(batch):
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(augment(batch, padding=2, flip=True, cutout=3))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


class FixedScores(torch.nn.Module):
    """A backbone whose first map's channels are the scores; the classifier passes them on."""

    feature_channels = (6,)

    def forward(self, images):
        return (images[:, :6],)


MODELS.register_module(module=FixedScores)


@pytest.fixture
def classifier():
    model = ImageClassifier(dict(type="onebit.FixedScores"), num_classes=6)
    torch.nn.init.eye_(model.classifier.weight)
    torch.nn.init.zeros_(model.classifier.bias)
    return model


def ranks(model, logits, labels):
    images = torch.tensor(logits).view(len(logits), 6, 1, 1)
    found = model(images, torch.tensor(labels), mode="predict")
    assert [p["label"] for p in found] == labels
    classes, places = (torch.stack([p[key] for p in found]) for key in ("classes", "ranks"))
    return ranks_of(torch.tensor(labels), classes, places).tolist()


def test_rank_counts_the_classes_that_score_higher(classifier):
    logits = [[0.1, 0.9, 0.3, 0.2, 0.0, -1.0]] * 6
    assert ranks(classifier, logits, list(range(6))) == [3, 0, 1, 2, 4, UNRANKED]


def test_tie_counts_against_the_label(classifier):
    assert ranks(classifier, [[1.0, 1.0, 0.0, 0.0, 0.0, 0.0]] * 2, [0, 1]) == [1, 1]
    assert ranks(classifier, [[0.0] * 6], [0]) == [UNRANKED]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_never_count(classifier, value):
    found = ranks(classifier, [[value] * 6, [9.0, value, 0.0, 0.0, 0.0, 0.0]], [0, 0])
    assert found == [UNRANKED] * 2


def test_broken_network_of_few_classes_does_not_score():
    model = ImageClassifier(dict(type="onebit.FixedScores"), num_classes=3)
    torch.nn.init.constant_(model.classifier.weight, float("nan"))
    assert ranks(model, [[1.0] * 6], [0]) == [UNRANKED]


def test_topk_is_a_share_and_holds_what_was_scored(classifier):
    logits = [[0.1, 0.9, 0.3, 0.2, 0.0, -1.0]] * 4
    labels = [1, 2, 4, 5]
    images = torch.tensor(logits).view(4, 6, 1, 1)
    metric = TopK(num_classes=6)
    for half in (slice(0, 2), slice(2, 4)):
        metric.process(None, classifier(images[half], torch.tensor(labels[half]), mode="predict"))
    assert metric.compute_metrics(metric.results) == dict(top1=0.25, top5=0.75)
    assert metric.predictions.classes.tolist() == [[1, 2, 3, 0, 4]] * 4
    assert metric.predictions.ranks.tolist() == [[0, 1, 2, 3, 4]] * 4


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_smoothed_cross_entropy(smoothing):
    torch.manual_seed(0)
    model = ImageClassifier(dict(type="onebit.FixedScores"), num_classes=6, label_smoothing=smoothing)
    images, labels = torch.randn(4, 6, 2, 2), torch.tensor([0, 5, 2, 2])
    logits = model(images)
    assert logits.shape == (4, 6)
    pooled = images.mean((2, 3)) @ model.classifier.weight.T + model.classifier.bias
    assert torch.allclose(logits, pooled, atol=1e-6)
    target = torch.full((4, 6), smoothing / 6)
    target[torch.arange(4), labels] += 1 - smoothing
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    assert torch.allclose(model(images, labels, mode="loss")["loss"], expected, atol=1e-6)

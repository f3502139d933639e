"""The auxiliary head and drop path of cell networks, in training."""

import pytest
import torch
import torch.nn.functional as F

from onebit.classification import runner as classification
from onebit.classification.hooks import DropPathSchedule
from onebit.classification.model import ImageClassifier
from onebit.commons.errors import InputError


def classifier(name="dcp_nas_c8_l3", out_index=3, **arguments):
    torch.manual_seed(0)
    backbone = dict(type="onebit.create_backbone", name=name, out_indices=(out_index,), stem="cifar")
    return ImageClassifier(backbone, num_classes=5, **arguments)


def test_loss_is_the_weighted_sum():
    model = classifier(auxiliary_weight=0.4, label_smoothing=0.1).eval()
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 4, 2])
    losses = model(images, labels, mode="loss")
    _, auxiliary_map = model.backbone.forward_auxiliary(images)
    logits = model.auxiliary_head(auxiliary_map)
    expected = 0.4 * F.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(losses["loss_auxiliary"], expected)
    main = F.cross_entropy(model(images), labels, label_smoothing=0.1)
    torch.testing.assert_close(losses["loss_main"], main)
    total, logged = model.parse_losses(losses)
    torch.testing.assert_close(total, main + expected)
    torch.testing.assert_close(logged["loss"], total)


def test_the_head_takes_no_part_in_prediction():
    with_head, without = classifier(auxiliary_weight=0.4).eval(), classifier().eval()
    without.load_state_dict(with_head.state_dict(), strict=False)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(with_head(images), without(images))
    assert set(without(images, torch.zeros(2).long(), mode="loss")) == {"loss"}
    assert not any("auxiliary" in key for key in without.state_dict())


def test_a_batch_of_one_image_goes_without():
    """The last one of an epoch: batch norm has nothing to normalize a single pixel by."""
    model = classifier(auxiliary_weight=0.4)
    losses = model(torch.randn(1, 3, 16, 16), torch.tensor([3]), mode="loss")
    assert set(losses) == {"loss"}
    assert losses["loss"].isfinite()


def test_every_parameter_learns():
    model = classifier(auxiliary_weight=0.4)
    losses = model(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 4, 2]), mode="loss")
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


def test_backbones_without_a_place_for_it():
    with pytest.raises(InputError, match=r"auxiliary_weight 0\.4: expected a network of cells"):
        classifier("resnet18_w8", auxiliary_weight=0.4)
    with pytest.raises(InputError, match="with its last scale"):
        classifier(out_index=1, auxiliary_weight=0.4)
    with pytest.raises(InputError, match="expected a number from 0 up"):
        classifier(auxiliary_weight=-1)


def test_a_row_with_both(job, monkeypatch):
    """Asked for by options; the probability rises epoch by epoch and the row can be scored again."""
    seen = []
    before_train_epoch = DropPathSchedule.before_train_epoch

    def spy(self, runner):
        before_train_epoch(self, runner)
        seen.append(runner.model.backbone.drop_path_prob)

    monkeypatch.setattr(DropPathSchedule, "before_train_epoch", spy)
    options = {
        "model.auxiliary_weight": 0.4,
        "default_hooks.drop_path.type": "DropPathSchedule",
        "default_hooks.drop_path.final": 0.2,
        "train_dataloader.batch_size": 80,  # all images: a step an epoch
    }
    built = job(backbone="dcp_nas_c4_l3", cfg_options=options)
    outcome = classification.train(built)
    assert seen == [0, 0.1]
    assert outcome.epochs == 2
    again = classification.test(outcome.checkpoint, built)
    assert again.metrics == outcome.metrics


def test_drop_path_needs_a_network_of_cells(job):
    options = {"default_hooks.drop_path.type": "DropPathSchedule"}
    with pytest.raises(InputError, match="DropPathSchedule: expected a network of cells"):
        classification.train(job(cfg_options=options))
    with pytest.raises(InputError, match=r"final 1\.5"):
        DropPathSchedule(1.5)

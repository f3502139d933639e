"""Every backbone inside torchreid."""

import pytest
import torch
import torchreid

from onebit import backbones, reid
from onebit.commons.errors import InputError
from onebit.reid.cost import model_cost
from onebit.reid.model import ReIDModel
from onebit.reid.torchreid_adapter import ImageDataManager, ImageSoftmaxEngine, registered_models

NARROW = ["resnet18_w16", "resnet18_w16_reactnet", "resnet34_w16_bireal", "resnet18_w16_xnor", "dcp_nas_c8"]


def test_torchreid_knows_every_backbone():
    assert set(backbones.list_backbones()) <= set(registered_models())


@pytest.mark.parametrize("name", NARROW)
def test_build_model(name):
    reid.register(name)
    model = torchreid.models.build_model(name, num_classes=7, pretrained=False)
    images = torch.randn(4, 3, 64, 32)
    assert model.train()(images).shape == (4, 7)
    features = model.eval()(images)
    assert features.shape == (4, model.embedding.feature_dim)
    assert torch.equal(features, model.embedding(images))


def test_the_file_of_a_searched_cell_names_a_network(tmp_path):
    path = backbones.Genotype.random(5).save(tmp_path / "cell.json")
    name = f"{path}_c4_l3"
    reid.register(name)
    model = torchreid.models.build_model(name, num_classes=7, pretrained=False)
    assert model.train()(torch.randn(4, 3, 64, 32)).shape == (4, 7)


def test_build_model_for_the_triplet_loss():
    reid.register("resnet18_w16")
    model = torchreid.models.build_model("resnet18_w16", 7, loss="triplet", pretrained=False)
    logits, features = model.train()(torch.randn(4, 3, 64, 32))
    assert logits.shape == (4, 7)
    assert features.shape == (4, model.embedding.feature_dim)


def test_pretrained_weights_do_not_exist():
    with pytest.raises(InputError, match="no pretrained weights of resnet18_bireal"):
        torchreid.models.build_model("resnet18_bireal", 7)


def test_torchreids_own_networks_stay_available():
    ours = torchreid.models.build_model("resnet18", 7, pretrained=False)
    theirs = torchreid.models.build_model("torchreid_resnet18", 7, pretrained=False)
    assert isinstance(ours, ReIDModel)
    assert type(theirs).__module__.startswith("torchreid")


def test_registering_twice_keeps_torchreids_own():
    theirs = registered_models()["torchreid_resnet18"]
    reid.register("resnet18")
    assert registered_models()["torchreid_resnet18"] is theirs


def test_register_an_unknown_name():
    with pytest.raises(InputError, match=r"unknown backbone 'resnet17'.*resnet"):
        reid.register("resnet17")
    assert "resnet17" not in registered_models()


@pytest.mark.parametrize("options", [dict(loss="hinge"), dict(neck="giraffe")])
def test_unknown_options(options):
    with pytest.raises(InputError, match=r"(loss 'hinge'|neck 'giraffe'): expected one of"):
        ReIDModel("resnet18_w16", 7, **options)


def test_bn_neck_stands_between_the_two_losses():
    model = ReIDModel("resnet18_w16", 7, loss="triplet", neck="bn")
    images = torch.randn(8, 3, 64, 32)
    _, features = model.train()(images)
    assert features.min() >= 0  # behind the last ReLU, before the batch norm
    assert model.eval()(images).min() < 0 or model.embedding.neck.running_mean.abs().sum() > 0
    assert ReIDModel("resnet18_w16", 7).state_dict().keys() < model.state_dict().keys()


def test_backbone_options_reach_the_backbone():
    maps = {}
    for stem in ("imagenet", "cifar"):
        model = ReIDModel("resnet18_w16", 7, backbone_options=dict(stem=stem))
        maps[stem] = model.embedding.backbone(torch.randn(1, 3, 64, 32))[-1].shape
    assert maps["cifar"][2] == 4 * maps["imagenet"][2]


@pytest.mark.parametrize("name", ["resnet18_w16", "resnet50_w16", "resnet18_w16_xnor", "resnet50_w16_reactnet"])
def test_last_stride_doubles_the_last_maps(name):
    """Same weights under the same names; the last maps twice as high and wide; more operations."""
    plain, dense = ReIDModel(name, 7), ReIDModel(name, 7, last_stride=1)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in dense.state_dict().items()}
    images = torch.randn(2, 3, 256, 128)
    with torch.no_grad():
        assert plain.eval().embedding.backbone(images)[-1].shape[2:] == (8, 4)
        assert dense.eval().embedding.backbone(images)[-1].shape[2:] == (16, 8)
    assert plain.embedding.backbone.feature_strides == (32,)
    assert dense.embedding.backbone.feature_strides == (16,)
    cost = [model_cost(name, "strict", last_stride=stride) for stride in (2, 1)]
    assert cost[1].macs > cost[0].macs
    assert cost[1].memory_bits == cost[0].memory_bits


@pytest.mark.parametrize("name", ["dcp_nas_c8", "dcp_nas_s"])
def test_cell_nets_have_no_last_stride(name):
    with pytest.raises(InputError, match=rf"last_stride 1: {name} has no last stage"):
        ReIDModel(name, 7, last_stride=1)
    ReIDModel(name, 7, last_stride=2)


def test_a_last_stride_that_is_none():
    with pytest.raises(InputError, match="last_stride 3: expected one of 1, 2"):
        ReIDModel("resnet18_w16", 7, last_stride=3)


def test_feature_dimension():
    model = ReIDModel("resnet18_w16", 7, feature_dim=20, neck="bn", loss="triplet")
    logits, features = model.train()(torch.randn(4, 3, 64, 32))
    assert (logits.shape, features.shape) == ((4, 7), (4, 20))
    assert model.eval()(torch.randn(4, 3, 64, 32)).shape == (4, 20)
    plain, projected = (model_cost("resnet18_w16", "strict", feature_dim=dim) for dim in (None, 20))
    assert projected.macs - plain.macs == 128 * 20
    assert projected.memory_bits - plain.memory_bits == 128 * 20 * 32
    with_classifier = model_cost("resnet18_w16", "strict", num_classes=7, feature_dim=20)
    assert with_classifier.macs - projected.macs == 20 * 7


@pytest.mark.parametrize("dim", [0, -3, 2.5, "64", True])
def test_a_feature_dimension_that_is_none(dim):
    with pytest.raises(InputError, match=r"feature_dim .*: expected a whole number from 1 up"):
        ReIDModel("resnet18_w16", 7, feature_dim=dim)


@pytest.mark.parametrize("name", ["resnet18_w16", "resnet18_w16_reactnet"])
def test_the_stock_engine_trains_an_epoch(name, tiny, tmp_path, capsys):
    """torchreid's own engine and reader, unchanged, with a model that `build_model` found."""
    reid.register(name)
    data = ImageDataManager(root=str(tiny), sources="market1501", height=64, width=32, batch_size_train=16, workers=0)
    model = torchreid.models.build_model(name, data.num_train_pids, pretrained=False)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = torchreid.optim.build_optimizer(model, optim="sgd", lr=0.01)
    scheduler = torchreid.optim.build_lr_scheduler(optimizer, stepsize=1)
    engine = ImageSoftmaxEngine(data, model, optimizer, scheduler)
    engine.run(save_dir=str(tmp_path / "log"), max_epoch=1, print_freq=1)
    assert "mAP" in capsys.readouterr().out
    moved = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
    assert sum(moved) > 0.9 * len(moved)

"""Squeeze-and-excitation on any convolutional network: counts, places, the identity, and runs."""

import json
import re
import signal
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import starts
import timm
import torch
import toy
from safetensors.torch import save_file
from timm.layers import SEModule
from timm.layers.squeeze_excite import SqueezeExciteCl
from torch import nn

from tutelage.cli import main
from tutelage.deploy.model_folder import Model, load_model, save_model
from tutelage.deploy.teacher_sources import from_folder
from tutelage.errors import UsageError
from tutelage.jobs import TrainSettings
from tutelage.networks.build import Net, build, check_net, parameters, weight_digest
from tutelage.networks.freeze import Freeze, freeze, groups_of, last_norm
from tutelage.networks.input_size import at_input_size
from tutelage.networks.noise import set_noise
from tutelage.networks.pretrained import WEIGHTS
from tutelage.networks.squeeze_excite import SE, Twice, attach_se, gates_in, sites_of
from tutelage.networks.teachers import Resized
from tutelage.pipelines.transfer import begin_as
from tutelage.values import from_plain, to_plain

CPU = torch.device("cpu")
CLASSES = ("ant", "bee", "cat")


def weightless(name, **more):
    with torch.device("meta"):
        return timm.create_model(name, **more)


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def added(module, **more):
    before = parameters(module)
    sites = attach_se(module, **more)
    return sites, parameters(module) - before


def lively(module, seed=0):
    """Statistics, scales and biases of its own, as in a trained network; no scale stays 0."""
    dice = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1:
            near = 0.0 if name.endswith(("bias", "running_mean")) else 0.8
            tensor.copy_(near + 0.2 * torch.rand(tensor.shape, generator=dice))
    return module.eval()


# Counts and places.


@pytest.mark.parametrize(
    ("name", "count", "weights", "first", "last"),
    [
        ("resnet50", 16, 2_514_944, "layer1.0.bn3", "layer4.2.bn3"),
        ("resnet18", 8, 87_040, "layer1.0.bn2", "layer4.1.bn2"),
        ("vgg16_bn", 13, 226_304, "features.2", "features.42"),
        ("inception_v3", 11, 1_650_944, "Mixed_5b", "Mixed_7c"),
        (
            "densenet121", 58, 7_424,
            "features.denseblock1.denselayer1", "features.denseblock4.denselayer16",
        ),
        ("mobilenetv2_100", 17, 563_936, "blocks.0.0.bn2", "blocks.6.0.bn2"),
        ("convnext_tiny", 18, 404_352, "stages.0.blocks.0.mlp", "stages.3.blocks.2.mlp"),
        ("xception41", 13, 1_255_280, "blocks.0.stack.conv3", "blocks.12"),
    ],
)  # fmt: skip
def test_every_kind_of_network_gets_the_papers_gates(name, count, weights, first, last):
    sites, more = added(weightless(name))
    assert (len(sites), more) == (count, weights)
    assert (sites[0].path, sites[-1].path) == (first, last)
    assert more == sum(2 * s.channels * (s.channels // 16) for s in sites)
    assert {s.channels_last for s in sites} == {name == "convnext_tiny"}


@pytest.mark.parametrize(
    ("reduction", "total"), [(2, 45.68), (4, 35.62), (8, 30.59), (16, 28.07), (32, 26.81)]
)
def test_the_papers_sweep_of_reductions(reduction, total):
    net = weightless("resnet50")
    _, more = added(net, reduction=reduction)
    stages = {256: 3, 512: 4, 1024: 6, 2048: 3}
    assert more == 2 * sum(n * c * c for c, n in stages.items()) // reduction
    assert round(parameters(net) / 1e6, 2) == total


def test_biases_are_counted_as_in_timms_own():
    net = weightless("resnet50")
    _, more = added(net, bias=True)
    assert more == 2_530_992
    assert parameters(net) == parameters(weightless("seresnet50")) == 28_088_024


def test_few_channels_keep_one_hidden_unit():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 40, 3), nn.ReLU())
    _, more = added(net)
    assert more == 2 * 4 * 1 + 2 * 40 * 2


@pytest.mark.parametrize(
    ("name", "count", "path"),
    [
        ("regnetx_002", 13, "s1.b1.conv3"),
        ("resnext50_32x4d", 16, "layer1.0.bn3"),
        ("resnetv2_50", 16, "stages.0.blocks.0.conv3"),
        ("res2net50_26w_4s", 16, "layer1.0.bn3"),
        ("cspresnet50", 13, "stages.0.blocks.0.conv3"),
        ("efficientnet_lite0", 16, "blocks.0.0.bn2"),
        ("inception_resnet_v2", 40, "repeat.0.conv2d"),
        ("repvgg_a0", 22, "stem"),
        ("dla34", 12, "level2.tree1.bn2"),
        ("vovnet39a", 6, "stages.0"),
    ],
)
def test_other_families_have_places_too(name, count, path):
    sites = sites_of(name, "auto")
    assert (len(sites), sites[0].path) == (count, path)


@pytest.mark.parametrize("name", ["seresnet50", "efficientnet_b0", "eca_resnet33ts", "skresnet18"])
def test_channels_are_not_weighed_twice(name):
    with pytest.raises(UsageError, match=f"{name} weighs its channels already, in .*twice"):
        sites_of(name, "auto")
    net = weightless("resnet18")
    attach_se(net)
    with pytest.raises(UsageError, match=r"weighs its channels already, in layer1\.0\.bn2\.se"):
        attach_se(net)


@pytest.mark.parametrize("name", ["test_vit", "mixer_s32_224", "swin_tiny_patch4_window7_224"])
def test_what_has_no_convolution_maps_is_refused(name):
    with pytest.raises(UsageError, match=f"{name} has no convolution maps.* leave out --se"):
        sites_of(name, "auto")


# Networks of plain torch, and places by name.


class Block(nn.Module):
    """Like torchvision's: one ReLU for all, functional downsampling."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(x + self.bn2(self.conv2(out)))


def test_plain_torch_networks_are_understood():
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), Block(8), nn.MaxPool2d(2), Block(8),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip
    assert [s.path for s in attach_se(net)] == ["1.bn2", "3.bn2"]
    assert net(images(2, 1, 28, 28)).shape == (2, 3)


def test_a_network_for_one_small_size_is_understood():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 10),
    )  # fmt: skip
    assert [s.path for s in attach_se(net)] == ["1", "4"]
    assert net(images(2, 3, 32, 32)).shape == (2, 10)


def test_a_pattern_or_a_function_chooses_layers():
    net = weightless("resnet18")
    assert [s.path for s in attach_se(net, where="layer4.*.bn2")] == [
        "layer4.0.bn2",
        "layer4.1.bn2",
    ]
    chosen = attach_se(weightless("resnet18"), where=lambda path, layer: path == "layer1")
    assert [s.path for s in chosen] == ["layer1.1.act2"]  # which gives the same
    with pytest.raises(UsageError, match=r"--se-where 'blocks\..' chooses no layer of resnet18"):
        sites_of("resnet18", "blocks.*")
    with pytest.raises(UsageError, match="reduction"):
        attach_se(net, reduction=0)


# What a gate does.


def test_a_gate_is_sigma_of_its_bias_where_its_last_layer_is_zero():
    net = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1))
    plain = deepcopy(net)
    attach_se(net, where="0", bias=True)
    gate, x = net[0].se, images(2, 3, 8, 8)
    nn.init.zeros_(gate.fc2.weight)
    nn.init.zeros_(gate.fc2.bias)
    assert torch.equal(net(x), 0.5 * plain(x))
    gate.fc2.bias.data.copy_(torch.linspace(-4, 4, 32))
    expected = torch.linspace(-4, 4, 32).sigmoid().view(1, -1, 1, 1) * plain(x)
    assert torch.allclose(net(x), expected, atol=1e-7)


@pytest.mark.parametrize("last", [False, True])
def test_a_gate_is_the_papers_formula(last):
    kind = SqueezeExciteCl if last else SEModule
    gate = kind(32, rd_channels=2, bias=False)
    maps = images(3, 7, 7, 32) if last else images(3, 32, 7, 7)
    inside = maps if last else maps.permute(0, 2, 3, 1)
    one, two = gate.fc1.weight.view(2, 32), gate.fc2.weight.view(32, 2)
    weights = ((inside.mean((1, 2)) @ one.T).relu() @ two.T).sigmoid()
    expected = inside * weights[:, None, None]
    found = gate(maps) if last else gate(maps).permute(0, 2, 3, 1)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_permuted_images_have_permuted_answers(name):
    module = lively(build(Net(name=name, num_classes=3, img_size=32, se=SE(reduction=4))))
    x, order = images(4, 3, 32, 32), torch.tensor([2, 0, 3, 1])
    assert torch.allclose(module(x)[order], module(x[order]), atol=1e-5)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "mobilenetv2_035", "repvgg_a0"])
def test_twice_begins_as_the_identity_to_the_last_bit(name):
    net = Net(name=name, num_classes=3, img_size=64)
    plain = lively(build(net))
    gated = build(replace(net, se=SE(gate="twice")))
    rest = gated.load_state_dict(plain.state_dict(), strict=False)
    assert rest.missing_keys
    assert not rest.unexpected_keys  # the names of all other weights stay
    x = images(2, 3, 64, 64)
    assert torch.equal(gated.eval()(x), plain(x))
    assert torch.equal(Twice()(torch.zeros(3)), torch.ones(3))
    halved = build(replace(net, se=SE()))
    halved.load_state_dict(plain.state_dict(), strict=False)
    assert not torch.allclose(halved.eval()(x), plain(x))


def test_gates_that_begin_as_the_identity_learn():
    net = Net(name="test_resnet", num_classes=3, img_size=32, se=SE(gate="twice"))
    module = lively(build(net)).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    gates = [module.get_submodule(path) for path in gates_in(module)]
    before = [gate.fc1.weight.clone() for gate in gates]
    for step in range(3):
        optimizer.zero_grad()
        module(images(4, 3, 32, 32, seed=step)).square().mean().backward()
        optimizer.step()
    assert all(gate.fc2.weight.abs().sum() > 0 for gate in gates)
    assert any(not torch.equal(a, g.fc1.weight) for a, g in zip(before, gates, strict=True))


def test_se_resnet_50_is_timms_own():
    own, timms = timm.create_model("resnet50"), timm.create_model("seresnet50")
    attach_se(own, bias=True)
    # timm's has 8 channels at least, and multiples of 8: as here at a reduction of 16
    lively(timms)
    names = {key: key.replace(".se.", ".bn3.se.") for key in timms.state_dict()}
    own.load_state_dict({names[key]: tensor for key, tensor in timms.state_dict().items()})
    x = images(2, 3, 64, 64)
    with torch.no_grad():
        one, other = own.eval()(x), timms(x)
    assert one.std() > 0
    assert (one - other).abs().max() == 0.0


# As a part of a network.


def test_a_description_with_gates_comes_back_and_older_ones_have_none(tiny):
    net = replace(tiny, se=SE(reduction=4, where="layer4.*.bn2", gate="twice"))
    plain = json.loads(json.dumps(to_plain(net)))
    assert from_plain(Net, plain) == net
    older = to_plain(tiny)
    del older["se"]
    assert from_plain(Net, older).se is None
    assert len(gates_in(build(net))) == 1


def test_a_seed_draws_the_same_gates_and_the_same_other_weights(tiny):
    net = replace(tiny, se=SE())
    one, two, plain = build(net, seed=3), build(net, seed=3), build(tiny, seed=3)
    assert weight_digest(one) == weight_digest(two)
    assert all(torch.equal(one.state_dict()[k], t) for k, t in plain.state_dict().items())


def test_a_saved_model_has_its_gates(tmp_path, tiny):
    net = replace(tiny, se=SE(reduction=2))
    module = lively(build(net))
    save_model(tmp_path / "model", Model(module, net, CLASSES, 32), "a card")
    found = load_model(tmp_path / "model")
    assert found.net == net
    x = images(2, 3, 32, 32)
    assert torch.allclose(found.module(x), module(x), atol=1e-5)


def test_noise_freezing_sizes_and_teachers_go_on_working(tiny):
    net = replace(tiny, se=SE(), drop_path=0.3, dropout=0.2, drop_block=0.2)
    module, plain = lively(build(net)), build(replace(net, se=None))
    rates = [
        [layer.drop_prob for layer in m.modules() if "drop_prob" in vars(layer)]
        for m in (module, plain)
    ]
    assert rates[0] == rates[1]
    assert max(rates[0]) == pytest.approx(0.3)
    set_noise(module, drop_path=0.0, dropout=0.0, drop_block=0.0)
    x = images(2, 3, 32, 32)
    module.eval()
    assert torch.equal(at_input_size(module, net, 48)(x), Resized(module, 32)(x))
    assert last_norm(module) == last_norm(plain)
    assert [k for k in groups_of(module)[1] if ".se." in k] == [
        "net.layer1.0.bn2.se.fc1.weight", "net.layer1.0.bn2.se.fc2.weight",
    ]  # fmt: skip
    freeze(module, Freeze(part="body"))
    assert [n for n, p in module.named_parameters() if p.requires_grad] == [
        "net.fc.weight", "net.fc.bias",
    ]  # fmt: skip
    twin = deepcopy(module)
    assert torch.equal(twin(x), module(x))
    twin.net.layer1[0].bn2.se = nn.Identity()
    assert not torch.equal(twin(x), module(x))


def test_a_network_that_takes_none_is_said_by_its_description(tiny):
    with pytest.raises(UsageError, match="test_vit has no convolution maps"):
        check_net(replace(tiny, name="test_vit", small_stem=False, se=SE()))


def test_branches_can_still_be_folded():
    module = lively(build(Net(name="repvgg_a0", num_classes=3, img_size=32, se=SE(reduction=4))))
    folded = timm.utils.reparameterize_model(module)
    assert parameters(folded) < parameters(module)
    x = images(2, 3, 32, 32)
    assert torch.allclose(folded(x), module(x), rtol=1e-3, atol=1e-4)
    assert gates_in(folded) == gates_in(module)


def test_the_example_of_the_docs_runs(capsys):
    text = (Path(__file__).parents[1] / "docs" / "networks.md").read_text()
    section = text.split("## Squeeze-and-excitation")[1].split("\n## ")[0]
    code, said = re.search(r"```python\n(.*?# (\[.*?))\n```", section, flags=re.DOTALL).groups()
    exec(compile(code, "networks.md", "exec"), {})
    assert capsys.readouterr().out.strip() == said


def test_compiled_answers_are_the_same(tiny):
    module = lively(build(replace(tiny, se=SE(reduction=4))))
    x = images(2, 3, 32, 32)
    fast = torch.compile(module, backend="eager", fullgraph=True)  # a single graph
    with torch.no_grad():
        assert torch.allclose(fast(x), module(x), atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_exported_answers_are_the_same(tmp_path):
    import onnxruntime

    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    attach_se(plain, reduction=2)
    last = build(Net(name="test_convnext", num_classes=3, img_size=32, se=SE(reduction=4)))
    x, path = images(2, 3, 32, 32), str(tmp_path / "a.onnx")
    for module in (lively(plain), lively(last)):
        torch.onnx.export(module, (x,), path, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(path)
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert torch.allclose(torch.from_numpy(found), module(x), rtol=1e-4, atol=1e-4)


# Weights that were learned before.


@pytest.fixture
def learned(tmp_path, tiny):
    """Model folders without and with gates, by name."""
    for name, se in (("plain", None), ("gated", SE(reduction=8))):
        net = replace(tiny, se=se)
        save_model(tmp_path / name, Model(lively(build(net)), net, CLASSES, 32), "a card")
    return tmp_path


def test_gates_on_given_weights_change_no_answer(learned, tiny):
    found = from_folder(learned / "plain", "plain", CPU)
    net = replace(tiny, se=SE(gate="twice"))
    begun = begin_as(found, net, CLASSES, seed=1, where="plain")
    plain = begin_as(found, tiny, CLASSES, seed=1, where="plain").module
    x = images(2, 3, 32, 32)
    assert torch.equal(begun.module.eval()(x), plain.eval()(x))
    assert "4 gates new" in begun.note


def test_gates_that_were_learned_are_kept_and_others_are_refused(learned, tiny):
    found = from_folder(learned / "gated", "gated", CPU)
    net = replace(tiny, se=SE(reduction=8))
    begun = begin_as(found, net, CLASSES, seed=1, where="gated")
    assert weight_digest(begun.module) == weight_digest(found.module)
    assert "gates" not in begun.note
    for se in (None, SE(reduction=4), SE(reduction=8, gate="twice")):
        with pytest.raises(UsageError, match=r"--init gated was trained .* give --se 8"):
            begin_as(found, replace(tiny, se=se), CLASSES, seed=1, where="gated")


# From the command line.


def flags(root, out, **more):
    given = toy.train_settings(root, out, **more)
    return [part for k, v in given.items() for part in (f"--{k.replace('_', '-')}", str(v))]


def gate_of(run):
    return load_model(run).net.se


def test_a_killed_run_with_gates_goes_on_to_the_same_weights_and_predicts_elsewhere(tmp_path):
    root = toy.write_toy(tmp_path)
    once, killed = tmp_path / "once", tmp_path / "killed"
    assert main(["train", *flags(root, once, se=16)]) == 0
    command = ["train", *flags(root, killed, se=16)]
    done = starts.run(starts.KILLER, "00-supervised", 2, *command)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert main(command) == 0
    one, other = (toy.weights_of(run, "00-supervised") for run in (once, killed))
    assert any(".se." in key for key in one)
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    assert gate_of(killed) == SE()
    answers = ["predict", str(killed), str(root / "test"), "--out", str(tmp_path / "answers.csv")]
    assert starts.run(starts.COMMAND, *answers).returncode == 0
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 1 + 24


def test_runs_begin_with_runs_and_keep_what_these_learned(tmp_path, capsys):
    root = toy.write_toy(tmp_path)
    plain, first = tmp_path / "plain", tmp_path / "first"
    settled = {"steps": 1, "optim.lr": 1e-12}  # nothing moves
    assert main(["train", *flags(root, plain, steps=2)]) == 0
    assert main(["train", *flags(root, first, init=plain, se=16, **settled)]) == 0
    assert gate_of(first) == SE(gate="twice")
    assert "se_gate: twice" in (first / "config.yaml").read_text()
    assert "4 gates new" in capsys.readouterr().err
    fresh = tmp_path / "fresh"
    assert main(["train", *flags(root, fresh, steps=2, se=8)]) == 0
    assert main(["train", *flags(root, tmp_path / "third", init=fresh, se=8, **settled)]) == 0
    assert gate_of(tmp_path / "third") == gate_of(fresh) == SE(reduction=8)
    assert main(["train", *flags(root, tmp_path / "fourth", init=fresh)]) == 2
    assert "give --se 8" in capsys.readouterr().err


def test_pretrained_weights_get_gates_that_begin_as_the_identity(tmp_path, monkeypatch):
    root = toy.write_toy(tmp_path / "toy")
    folder = tmp_path / "weights"
    folder.mkdir()
    save_file(timm.create_model("test_resnet").state_dict(), folder / "test_resnet.safetensors")
    monkeypatch.setenv(WEIGHTS, str(folder))
    command = [*flags(root, tmp_path / "run", steps=1, se=16), "--pretrained"]
    assert main(["train", *command]) == 0
    assert gate_of(tmp_path / "run") == SE(gate="twice")


def test_all_networks_of_a_self_training_have_gates(tmp_path):
    root, run = toy.write_toy(tmp_path), tmp_path / "run"
    more = {"se": 16, "steps": 2, "rounds": 1, "baseline-length": "steps"}
    assert main(["selftrain", *toy.selftrain_flags(root, run, **more)]) == 0
    assert gate_of(run) == SE()
    assert {load_model(p.parent).net.se for p in run.glob("rounds/*/config.json")} == {SE()}


def test_a_network_with_gates_teaches_one_without(tmp_path):
    root, run, student = toy.write_toy(tmp_path), tmp_path / "run", tmp_path / "student"
    more = {"steps": 30, "optim.lr": 0.05, "se": 4}
    assert main(["train", *flags(root, run, **more)]) == 0
    given = flags(root, student, steps=2, ratio=1, teacher=run, unlabeled=root / "pool")
    given[given.index("--model")] = "--student"
    assert main(["distill", *given, "--no-baseline"]) == 0
    assert gate_of(run) == SE(reduction=4)
    assert gate_of(student) is None


def test_a_setting_that_can_not_be_is_said_before_data_is_read(tmp_path, capsys):
    nowhere = flags(tmp_path / "nowhere", tmp_path / "run", model="test_vit", se=16)
    assert main(["train", *nowhere]) == 2
    assert "test_vit has no convolution maps" in capsys.readouterr().err
    for bad in ({"se": 0}, {"se_gate": "twice"}, {"se_where": "layer1.*"}):
        with pytest.raises(UsageError, match="se"):
            TrainSettings(data="x", out=tmp_path, model="test_resnet", **bad)

"""A run on CIFAR's archives, from training to evaluation."""

import pytest
from cifar_archives import write_archive
from tiny_data import overrides

from mindspore_gpt4image.classifiers import load_classifier
from mindspore_gpt4image.config import load_config
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.evaluation.evaluate import evaluate
from mindspore_gpt4image.training.loop import train

OPTIONS = {"loss__alignment": "none", "model__image_size": 32, "augment__eval_resize": 32, "optimizer__lr": 0.01}


def test_classes_in_an_order_of_one_s_own_from_training_to_evaluation(tmp_path):
    archive = write_archive(tmp_path, "cifar10", "python", per_file=6)
    classes = tmp_path / "classes.txt"
    classes.write_text("bird\nplane\ncar\n")
    (tmp_path / "config.yaml").write_text("epochs: 3")
    config = load_config(
        tmp_path / "config.yaml",
        overrides(archive, tmp_path / "run", data__format="cifar10", data__classes=classes, epochs=3, **OPTIONS),
    )
    summary = train(config)
    assert (summary["split"], summary["best_is_selected_on"]) == ("test", "test")
    classifier = load_classifier(tmp_path / "run")
    assert classifier.model.classes == ("bird", "plane", "car")

    def measure(split="test", data=None):
        return evaluate(classifier, split, data=data, batch_size=4, workers=1).values

    result = measure()
    assert result["top1"] == summary["top1"] == 100
    assert [row["class"] for row in result["predictions"][:3]] == ["plane", "car", "bird"]
    binary = measure(data=write_archive(tmp_path, "cifar10", "binary", per_file=6))
    assert binary["predictions"] == result["predictions"]
    with pytest.raises(UserError, match="CIFAR has no split 'val'; splits there: train, test"):
        measure("val")
    with pytest.raises(UserError, match=r"3 of its 3 classes are none of the 3 known ones \(first: 'zebra'"):
        measure(data=write_archive(tmp_path / "other", "cifar100", "binary"))


def test_a_class_that_the_file_lacks(tmp_path):
    archive = write_archive(tmp_path, "cifar10", "binary")
    (tmp_path / "classes.txt").write_text("bird\nplane\n")
    (tmp_path / "config.yaml").write_text("")
    values = overrides(archive, tmp_path / "run", data__classes=tmp_path / "classes.txt", **OPTIONS)
    with pytest.raises(UserError, match=r"are none of the 2 known ones \(first: 'car'\)"):
        train(load_config(tmp_path / "config.yaml", values))
    assert not (tmp_path / "run").exists()

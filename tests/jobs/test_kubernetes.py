"""jobs/kubernetes: manifests against Kubernetes' own schema, and run with a program in kubectl's place."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from small_corpus import SmallCorpus

yaml = pytest.importorskip("yaml")
kubernetes_validate = pytest.importorskip("kubernetes_validate")

NAMES = ("volume", "shard", "translate", "merge")
ROOT = Path(__file__).resolve().parents[2]


def manifest(jobs: Path, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((jobs / "kubernetes" / f"{name}.yaml").read_text())
    return loaded


@pytest.mark.parametrize("version", ["1.31", "1.36"])
@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_fits_the_schema_and_has_nothing_unknown(jobs: Path, name: str, version: str) -> None:
    kubernetes_validate.validate(manifest(jobs, name), version, strict=True)


def test_the_schema_would_notice_a_wrong_name(jobs: Path) -> None:
    job = manifest(jobs, "translate")
    job["spec"]["backoffLimitPerindex"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, "1.36", strict=True)


def test_the_indexed_job_covers_every_shard(jobs: Path) -> None:
    spec = manifest(jobs, "translate")["spec"]
    [container] = spec["template"]["spec"]["containers"]
    assert spec["completionMode"] == "Indexed"
    assert container["command"][-2:] == ["--of", str(spec["completions"])]
    assert spec["podFailurePolicy"]["rules"][-1]["onExitCodes"]["containerName"] == container["name"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never", "what podFailurePolicy asks for"


def test_every_pod_mounts_what_it_names(jobs: Path) -> None:
    claim = manifest(jobs, "volume")["metadata"]["name"]
    for name in NAMES[1:]:
        pod = manifest(jobs, name)["spec"]["template"]["spec"]
        [container] = pod["containers"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        assert volumes["data"]["persistentVolumeClaim"]["claimName"] == claim


@pytest.fixture
def cluster(environment: dict[str, str], corpus: SmallCorpus, tmp_path: Path) -> dict[str, str]:
    """The volume is a folder with a corpus in Parquet, as the manifests name it."""
    import polars as pl

    (tmp_path / "data").mkdir()
    pl.DataFrame({"text": [f"Sentence number {n}." for n in range(20)]}).write_parquet(
        tmp_path / "data" / "corpus.parquet"
    )
    return {**environment, "CLUSTER": str(tmp_path / "data"), "POLL_SECONDS": "0"}


def smaller(jobs: Path, folder: Path) -> Path:
    """The same files with ``echo`` and a few indices, so that they run here."""
    folder.mkdir()
    for path in (jobs / "kubernetes").iterdir():
        text = path.read_text().replace("--model, koen-v4", "--engine, echo, --rows-per-shard, '5'")
        (folder / path.name).write_text(text.replace('"64"', '"2"').replace("completions: 64", "completions: 2"))
    (folder / "run.sh").chmod(0o755)
    return folder


def test_the_three_jobs_make_what_translate_makes(jobs: Path, cluster: dict[str, str], tmp_path: Path) -> None:
    import koen_batch

    script = smaller(jobs, tmp_path / "kubernetes") / "run.sh"
    done = subprocess.run([script], env=cluster, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    alone = tmp_path / "alone.parquet"
    koen_batch.translate(str(tmp_path / "data" / "corpus.parquet"), to="ko", engine="echo", output=str(alone))
    assert (tmp_path / "data" / "corpus.ko.parquet").read_bytes() == alone.read_bytes()


def test_a_job_that_fails_ends_the_run_with_what_to_look_at(
    jobs: Path, cluster: dict[str, str], tmp_path: Path
) -> None:
    script = smaller(jobs, tmp_path / "kubernetes") / "run.sh"
    (tmp_path / "data" / "corpus.parquet").write_bytes(b"no Parquet")
    done = subprocess.run([script], env=cluster, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "koen-shard has failed: kubectl logs" in done.stderr
    assert not (tmp_path / "data" / "koen-translate.state").exists()


def test_the_container_file_copies_what_is_there_and_its_commands_are_sound(
    jobs: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """No container is built here: its instructions are read, and its commands go through shellcheck."""
    lines = re.sub(r"\\\n", "", (jobs / "kubernetes" / "Containerfile").read_text()).splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    known = {"FROM", "RUN", "WORKDIR", "ARG", "COPY", "USER", "ENV", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in instructions} <= known
    sources = [source for name, rest in instructions if name == "COPY" for source in rest.split()[:-1]]
    assert {"requirements", "koen_batch", "train"} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)
    assert (ROOT / "requirements" / "gpu.lock").exists() and (ROOT / "requirements" / "cpu.lock").exists()
    commands = tmp_path / "commands.sh"
    commands.write_text("#!/bin/sh\nLOCK=gpu.lock\n" + "\n".join(rest for name, rest in instructions if name == "RUN"))
    subprocess.run(["shellcheck", commands], env=environment, check=True)

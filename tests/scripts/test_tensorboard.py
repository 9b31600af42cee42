"""What TensorBoard serves of two runs."""

import json
import re
import time
import urllib.request

import pytest


def test_tensorboard_serves_scalars_images_layout_and_hparams(day):
    from scripts.media.screenshot import tensorboard

    def get(path: str, body: dict | None = None) -> dict | list:
        request = urllib.request.Request(address + path, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
        return json.loads(urllib.request.urlopen(request, timeout=30).read())

    dmcontrol, atari = "dmcontrol/cartpole_swingup/mlr-debug/seed1", "atari/pong/mlr-debug/seed1"
    with tensorboard(day[0]) as address:
        deadline = time.time() + 60
        while set(get("/data/runs")) != {dmcontrol, atari} and time.time() < deadline:
            time.sleep(0.3)
        scalars = get("/data/plugin/scalars/tags")
        for name in (dmcontrol, atari):
            shared = {"eval/episode_return", "loss/mlr", "mlr/mask_ratio", "mlr/target_distance", "final/episode_return", "time/update"}
            assert shared <= set(scalars[name])
            result = json.loads((day[0] / name / "result.json").read_text())
            points = get(f"/data/plugin/scalars/scalars?run={name}&tag=final/episode_return")
            assert points[-1][2] == pytest.approx(sum(result["eval_returns"]) / len(result["eval_returns"]), rel=1e-4)
            ratio = get(f"/data/plugin/scalars/scalars?run={name}&tag=mlr/mask_ratio")
            assert 0.3 < ratio[-1][2] < 0.7
            for tag, magic in (("mlr/frames_and_masked", b"\x89PNG"), ("eval/episode", b"GIF8")):
                pictures = get(f"/data/plugin/images/images?run={name}&tag={tag}&sample=0")
                query = pictures[-1]["query"]
                assert urllib.request.urlopen(f"{address}/data/plugin/images/individualImage?{query}", timeout=30).read().startswith(magic)
            assert set(get("/data/plugin/text/tags")[name]) == {"run/command/text_summary", "run/config/text_summary"}
            config = get(f"/data/plugin/text/text?run={name}&tag=run/config/text_summary")[0]["text"]
            assert "preset: debug" in config and "ratio: 0.5" in config
        layout = get("/data/plugin/custom_scalars/layout")
        assert [c["title"] for c in layout["category"]] == ["return", "losses", "diagnostics", "speed"]
        every = {tag for tags in scalars.values() for tag in tags}
        for chart in (chart for category in layout["category"] for chart in category["chart"]):
            assert any(re.search(tag, name) for tag in chart["multiline"]["tag"] for name in every), chart  # no empty chart
        columns = [{"hparam": "method"}, {"metric": {"tag": "final/episode_return", "group": ""}, "order": "ORDER_DESC"}]
        statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
        body = {"experimentName": "", "colParams": columns, "allowedStatuses": statuses, "startIndex": 0, "sliceSize": 9}
        groups = get("/data/plugin/hparams/session_groups", body)["sessionGroups"]
        assert [g["name"] for g in groups] == [dmcontrol, atari]  # sorted by the final score
        assert groups[0]["hparams"]["task"] == "cartpole_swingup" and groups[1]["hparams"]["game"] == "pong"
        finals = [m["value"] for g in groups for m in g["metricValues"] if m["name"]["tag"] == "final/episode_return"]
        assert len(finals) == 2 and finals[0] > finals[1]
        experiment = get("/data/plugin/hparams/experiment", {"experimentName": "", "includeMetrics": True})
        assert {"method", "preset", "seed"} <= {h["name"] for h in experiment["hparamInfos"][:5]}
        assert experiment["metricInfos"][0]["name"]["tag"].startswith("final/")

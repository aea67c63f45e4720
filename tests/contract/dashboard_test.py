"""The dashboard names only metrics that exist, with labels that they carry; histograms by their parts."""
import json
import re
import unittest

PARTS = ("_bucket", "_sum", "_count")


def documented():
    """name -> (type, labels), of docs/metrics.md, which is made from the table of metrics."""
    rows = {}
    with open("docs/metrics.md") as f:
        for line in f:
            m = re.match(r"\| `([a-z]+:[a-z0-9_]+)` \| (gauge|counter|histogram) \| ([a-z_, ]*) ?\|", line)
            if m:
                rows[m[1]] = (m[2], set(re.findall(r"[a-z_]+", m[3])))
    return rows


class Dashboard(unittest.TestCase):
    def test_expressions(self):
        rows = documented()
        self.assertGreater(len(rows), 30)
        with open("docs/grafana.json") as f:
            board = json.load(f)
        seen = set()
        for panel in board["panels"]:
            for target in panel["targets"]:
                names = re.findall(r"(?:vllm|troupe):[a-z0-9_]+", target["expr"])
                self.assertTrue(names, target)
                for name in names:
                    part = next((p for p in PARTS if name.endswith(p) and name not in rows), "")
                    base = name[:len(name) - len(part)]
                    self.assertIn(base, rows, panel["title"])
                    self.assertEqual(part != "", rows[base][0] == "histogram", name)
                    seen.add(base)
                labels = set(re.findall(r"([a-z_]+)=~?\"", target["expr"]))
                labels |= set(re.findall(r"\{\{([a-z_]+)\}\}", target["legendFormat"]))
                for by in re.findall(r"by \(([a-z_, ]+)\)", target["expr"]):
                    labels |= set(re.findall(r"[a-z_]+", by))
                carried = set().union(*(rows[re.sub("_bucket$", "", n)][1] for n in names)) | {"le"}
                self.assertLessEqual(labels, carried, panel["title"])
        self.assertGreater(len(seen), 15)


if __name__ == "__main__":
    unittest.main()

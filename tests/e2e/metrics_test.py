"""/metrics of a real company: every family that the document names, and numbers that fit what was asked."""
import re
import time
import unittest

from company import PROMPTS
from gateway_company import Gateway

ONLY_WITH = ("troupe:store_", "troupe:link_")  # a store; other hosts


def families():
    with open("docs/metrics.md") as f:
        rows = re.findall(r"^\| `([a-z]+:[a-z0-9_]+)` \| (gauge|counter|histogram) \|", f.read(), re.M)
    return {name: kind for name, kind in rows if not name.startswith(ONLY_WITH)}


class Metrics(unittest.TestCase):
    def scrape(self, g):
        """sample with its labels -> value"""
        text = g.ask("GET", "/metrics")[2]
        kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
        self.assertEqual(kinds, families())
        self.assertEqual(set(re.findall(r"^# HELP (\S+) .+$", text, re.M)), set(kinds))
        samples = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        self.assertEqual(len({name for name, _, _ in samples}), len(samples))
        return {name: float(value) for name, _, value in samples}

    def test_numbers(self):
        with Gateway("--prefill", "pp=1,dtype=bf16", "--decode", "pp=2,dtype=int8", "--served-model-name", "fox") as g:
            def of(m, name, labels=""):
                return m["vllm:%s{model_name=\"fox\"%s}" % (name, labels)]

            begin = time.monotonic()
            first = self.scrape(g)
            self.assertEqual(of(first, "request_success_total", ',finished_reason="length"'), 0)
            usage = [g.complete(prompt=p)["usage"] for p in PROMPTS[:2]]
            g.events("/v1/completions", {"prompt": PROMPTS[2], "max_tokens": 16})
            m = self.scrape(g)
            wall = time.monotonic() - begin
            self.assertEqual(of(m, "request_success_total", ',finished_reason="length"'), 3)
            self.assertEqual(of(m, "generation_tokens_total"), 48)
            self.assertGreater(of(m, "prompt_tokens_total"), sum(u["prompt_tokens"] for u in usage))
            for name, n in (("time_to_first_token_seconds", 3), ("inter_token_latency_seconds", 45),
                            ("e2e_request_latency_seconds", 3), ("request_queue_time_seconds", 3),
                            ("request_generation_tokens", 3)):
                self.assertEqual(of(m, name + "_count"), n)
                self.assertEqual(of(m, name + "_bucket", ',le="+Inf"'), n)
                buckets = [v for k, v in m.items() if k.startswith("vllm:%s_bucket" % name)]
                self.assertEqual(buckets, sorted(buckets))
            tokens = of(m, "time_to_first_token_seconds_sum") + of(m, "inter_token_latency_seconds_sum")
            self.assertLessEqual(tokens, of(m, "e2e_request_latency_seconds_sum") + 0.01)
            self.assertLess(of(m, "e2e_request_latency_seconds_sum"), wall)
            self.assertEqual(m["troupe:kv_handoff_seconds_count"], 3)
            self.assertGreater(m["troupe:kv_handoff_bytes_total"], 0)
            for stage in ("prefill.0", "decode.0", "decode.1"):
                def spent(scraped):
                    return sum(v for k, v in scraped.items()
                               if k.startswith("troupe:stage_time_seconds_total{stage=\"%s\"" % stage))
                self.assertLessEqual(spent(m) - spent(first), wall)
                self.assertGreater(spent(m), spent(first))
                self.assertEqual(m["troupe:actor_up{actor=\"%s\"}" % stage], 1)
            pages = {s: m["troupe:kv_pages{pool=\"decode\",state=\"%s\"}" % s] for s in ("used", "free")}
            self.assertEqual(pages["used"], 0)
            self.assertGreater(pages["free"], 0)


if __name__ == "__main__":
    unittest.main()

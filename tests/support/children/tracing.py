"""A process with agents whose spans are open, until it is killed."""

from __future__ import annotations

import json
import sys

from opentelemetry.sdk.trace import TracerProvider

from orchdb.integrations.opentelemetry import OrchdbSpanProcessor

if __name__ == "__main__":
    url, seconds = sys.argv[1:]
    processor = OrchdbSpanProcessor(url, lease_seconds=float(seconds))
    provider = TracerProvider()
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("invoke_agent done"):
        pass
    with tracer.start_as_current_span("invoke_agent lead"), tracer.start_as_current_span("invoke_agent scout"):
        print(json.dumps(processor.force_flush()), flush=True)
        sys.stdin.readline()

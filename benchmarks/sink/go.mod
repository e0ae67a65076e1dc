module mailfleet.dev/benchmarks/sink

go 1.25.0

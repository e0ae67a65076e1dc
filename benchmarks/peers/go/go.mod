module mailfleet.dev/benchmarks/peers/go

go 1.25.0

require (
	github.com/knadh/smtppool/v2 v2.1.0
	github.com/lib/pq v1.12.3
)

module mailfleet.dev/deploy/cluster/pause

go 1.25.0

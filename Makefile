# The targets are short names; what CI runs is in .ci/run, step by step.

.PHONY: check test race fuzz sim bench bench-engine torture cover ci

# Before every commit: all that is quick.
check:
	bash .ci/run format vet staticcheck imports race fuzz simulation

test:
	go test ./...

race:
	bash .ci/run race

# FUZZ_SECONDS=600 make fuzz looks longer; ten minutes are shared by all targets.
fuzz:
	bash .ci/run fuzz

# SEEDS=10000 make sim runs more simulated clusters.
sim:
	bash .ci/run simulation

# Micro-benchmarks beside the code. Comparisons with other stores are in bench/.
bench:
	go test -run '^$$' -bench . -benchmem ./...

# The engine beside others, about four hours on a quiet machine. ENGINE=-quick has
# a look in a minute; ENGINE="-workloads fill,ycsb" measures some of it.
bench-engine:
	cd bench/engine && go run . -out results $(ENGINE)

# The long forms of the tests: all crash points, many seeds, large clusters, real
# processes. Takes hours; prints what it did, and says what it could not run on this machine.
torture:
	KVSTORE_TORTURE=1 go test -v -count=1 -timeout 24h ./...

cover:
	go test -coverpkg=./... -coverprofile=cover.out ./...
	go tool cover -func=cover.out | tail -n 1

ci:
	bash .ci/run

// Package simulation tests Evenweave's elasticity in virtual time: seeded schedules of faults over the real policy and
// the real choice of a state. All around them (etcd and its fences, network, disk, processes, the ring) is reduced to
// events in one queue. It has only tests:
//
//	sim_test.go          time, processes that die or pause, a network that loses and delays messages
//	etcd_test.go         records, leases, fenced transactions whose answers may be lost or late
//	member_test.go       a worker's loop: entering and leaving worlds, steps, fetching states
//	ring_test.go         collectives that may reach some ranks and not others
//	coordinator_test.go  terms: facts to the policy, its actions to etcd, states to disk
//	proof_test.go        what proves a state: a strict majority of a world, no single member
//	liar_test.go         a member that lies, if two others of its world can contradict it
//	constants_test.go    the product's times
//	faults_test.go       the faults
//	many_test.go         a thousand members
//	simulation_test.go   thousands of schedules, and planted bugs that they must find
//
// To see the events of a failing seed: go test ./internal/simulation -run Schedules -seed N.
package simulation

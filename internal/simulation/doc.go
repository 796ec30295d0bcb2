// Package simulation proves Evenweave's elasticity on paper time: seeded schedules of faults over the real world policy and the
// real choice of a state, with everything around them (etcd and its fences, network, disk, processes, the ring) reduced to events
// in one queue. It has nothing but tests:
//
//	sim_test.go          time, processes that die or pause between any two events, a network that loses, delays and parts
//	etcd_test.go         records, leases, fenced transactions whose answers may be lost or come late
//	member_test.go       a worker's loop: worlds entered and left, steps, states fetched, leaving
//	ring_test.go         collectives that may reach some ranks and not others
//	coordinator_test.go  terms: facts to the policy, its actions to etcd, states to disk
//	proof_test.go        what a term believes: a strict majority of a world, no single member
//	liar_test.go         a member that lies, where two others of its world can contradict it
//	constants_test.go    the product's times, compared with it
//	faults_test.go       what goes wrong, and when it stops
//	simulation_test.go   thousands of schedules, and planted bugs that must be found
//
// A failing seed is told with its events: go test ./internal/simulation -run Schedules -seed N.
package simulation

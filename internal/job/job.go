// Package job holds the records that every process of a job shares: the spec, the job itself, its members, its worlds
// and its end. They are plain values with a JSON form; package cluster keeps them in etcd.
package job

import (
	"encoding/json"
	"maps"
	"slices"
)

// Job is the record that creates a job. Only the transaction that writes it first starts from fresh weights.
type Job struct {
	Version Version `json:"version"`
	UUID    string  `json:"uuid"`
	Spec    Spec    `json:"spec"`
	// Backend that all members use: "xla", "xla:cuda" or "go".
	Backend string `json:"backend"`
	// Numerics is the hash of the golden probe; "" until the first member is admitted.
	Numerics string `json:"numerics,omitempty"`
	// NumericsParts has short hashes of the probe's parts, to name what differs first (see package probe); may be "".
	NumericsParts string `json:"numerics_parts,omitempty"`
	// CheckpointEvery is the distance of due checkpoints in steps beside each epoch's end; 0: none.
	CheckpointEvery int64 `json:"checkpoint_every"`
	// Generation is that of the world that was written with this record; 0: none was. If the world's record is lost,
	// the next one goes on from here.
	Generation int64 `json:"generation,omitempty"`
	// DurableStep is the newest that this world, or an end after it, names.
	DurableStep int64 `json:"durable_step,omitempty"`
}

// Due says whether the state after `step` updates must reach a durable checkpoint. A pure function, so that members
// know what to keep.
func (j Job) Due(step int64) bool {
	return step > 0 && (j.Spec.EpochEnds(step) || step == j.Spec.TotalSteps() || j.CheckpointEvery > 0 &&
		step%j.CheckpointEvery == 0)
}

// Protocol numbers what processes say to each other: records in etcd, messages, ring frames. It rises whenever a change
// of those would make a process of the version before misunderstand one of this version. Members of
// different protocols never train together.
const Protocol = 7

// Member is a live worker process, registered once it is loaded, compiled and warm.
type Member struct {
	Version     Version `json:"version"`
	ID          string  `json:"id"`
	Job         string  `json:"job"`
	Address     string  `json:"address"` // where its gRPC services and the ring are reached
	HTTP        string  `json:"http,omitempty"`
	Host        string  `json:"host"`
	PID         int     `json:"pid"`
	Parallelism int     `json:"parallelism"`
	Backend     string  `json:"backend"`
	Numerics    string  `json:"numerics"`
	// NumericsParts: as in Job.
	NumericsParts string `json:"numerics_parts,omitempty"`
	Protocol      int    `json:"protocol"`
	// Keys are the public keys of its certificate, two while it is renewed: see package security. None without TLS.
	Keys []string `json:"keys,omitempty"`
	// Leaving asks for a world without this member.
	Leaving bool `json:"leaving,omitempty"`
}

// Peer is a member's place in a world: its rank is its index.
type Peer struct {
	ID      string `json:"id"`
	Address string `json:"address"`
}

// Peer is the member's place in a world.
func (m Member) Peer() Peer { return Peer{ID: m.ID, Address: m.Address} }

// World is the ordered list of members that train together. Published by the coordinator only.
type World struct {
	Version    Version `json:"version"`
	Job        string  `json:"job"`
	Generation int64   `json:"generation"`
	Peers      []Peer  `json:"peers"`
	// Since: members in a generation of at least Since finish their step and switch after its commit; members in an
	// older one stop at once.
	Since int64 `json:"since"`
	// DurableStep is the step of the newest durable checkpoint; Coordinator serves it.
	DurableStep int64  `json:"floor"`
	Coordinator string `json:"coordinator"`
	// Backoff is how many times the deadlines have been doubled after false accusations.
	Backoff int `json:"patience,omitempty"`
	// Fresh are peers that are not known to have the newest state: theirs count only if no other peer has one.
	Fresh []string `json:"fresh,omitempty"`
	// Away are members with the newest state that this world does not use: their states count if they come back before
	// another world opens.
	Away []Peer `json:"away,omitempty"`
	// Doubted are members, of this world or not, whose states may have been old when it was published: they count if it
	// does not open and no other member has one.
	Doubted []Peer `json:"doubted,omitempty"`
	// Dismissed are members that are to end, each with the reason: they failed again and again.
	Dismissed map[string]string `json:"dismissed,omitempty"`
	// Halt: take no further step, serve the state.
	Halt   bool   `json:"halt,omitempty"`
	Reason string `json:"reason"`
	// Keys are those of the peers' records, by member.
	Keys map[string][]string `json:"keys,omitempty"`

	// Record is the world as the coordinator has published it, with its seal: for members that pass it on.
	Record []byte `json:"-"`
}

// Rank returns the member's rank, or -1 when the world does not use it.
func (w World) Rank(member string) int {
	return slices.IndexFunc(w.Peers, func(p Peer) bool { return p.ID == member })
}

// FreshRanks says of each rank whether it is fresh.
func (w World) FreshRanks() []bool {
	fresh := make([]bool, len(w.Peers))
	for rank, p := range w.Peers {
		fresh[rank] = slices.Contains(w.Fresh, p.ID)
	}
	return fresh
}

// Size is the world size.
func (w World) Size() int { return len(w.Peers) }

// IDs lists the members by rank.
func (w World) IDs() []string {
	ids := make([]string, len(w.Peers))
	for i, p := range w.Peers {
		ids[i] = p.ID
	}
	return ids
}

// Fit leaves out of a world what does not fit into so many bytes of JSON, and counts it: members that are dismissed,
// which a later world names, then members that are away or in doubt, whose states then do not count.
func (w *World) Fit(most int) (left int) {
	size := func(v any) int {
		b, _ := json.Marshal(v) // cannot fail: plain values
		return len(b) + 1       // and a comma
	}
	over := size(w) - most
	if over <= 0 {
		return 0
	}
	w.Dismissed = maps.Clone(w.Dismissed)
	for _, id := range slices.Sorted(maps.Keys(w.Dismissed)) {
		if over <= 0 {
			return left
		}
		over -= size(id) + size(w.Dismissed[id])
		delete(w.Dismissed, id)
		left++
	}
	for _, peers := range []*[]Peer{&w.Away, &w.Doubted} {
		n := len(*peers)
		for ; over > 0 && n > 0; n-- {
			over -= size((*peers)[n-1])
			left++
		}
		*peers = (*peers)[:n]
	}
	return left
}

// Leader is the coordinator's record under its election.
type Leader struct {
	Version Version `json:"version"`
	ID      string  `json:"id"`
	Address string  `json:"address"`
	HTTP    string  `json:"http,omitempty"`
	Host    string  `json:"host"`
	PID     int     `json:"pid"`
}

// Done ends a job: written after its last checkpoint is durable. Members may go once they have read it.
type Done struct {
	Version     Version `json:"version"`
	Job         string  `json:"job"`
	Generation  int64   `json:"generation"`
	Step        int64   `json:"step"`
	Fingerprint string  `json:"fingerprint"`
	Checkpoint  string  `json:"checkpoint"`
	// Complete: the schedule's last step is in. False: stopped early, to be resumed.
	Complete bool `json:"complete"`
	// Failure is the verdict that ended the job, or "".
	Failure string `json:"failure,omitempty"`
}

package job

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of what a record may say. They are far above what anybody uses, and low enough that no arithmetic on them
// overflows and nothing that is allocated by them exhausts a machine.
const (
	MaxStep        = 1 << 53 // of steps, generations and epochs: the largest that every reader of JSON holds exactly
	MaxGlobalBatch = 1 << 20
	MaxMicroBatch  = 1 << 16
	MaxPeers       = 1 << 16
	// MaxWorld is how many members train together; others are spares. So many peers, each with the longest of names,
	// addresses and keys, fit into MaxWorldBytes.
	MaxWorld      = 1000
	MaxWorldBytes = 1 << 20 // of a world's record, with its seal; etcd takes 1.5 MB in one request
	MaxBackoff    = 6       // deadlines are shifted left by it
	MaxID         = 63      // a label of DNS, as the name of a Kubernetes pod mostly is
	MaxName       = 40      // of a job: it is a part of other names
	maxAddress    = 261     // a DNS name, a colon and a port
	maxParts      = 4096    // bytes of the short hashes of a golden probe
	maxWord       = 128     // bytes of a hash, a recipe's name or a UUID
	maxKey        = 64      // bytes of the name of a public key
	maxText       = 4096
)

// CheckID says what is wrong with the id of a member or a coordinator, or returns nil.
func CheckID(id string) error { return checkName(id, MaxID) }

// CheckName says what is wrong with the name of a job, or returns nil.
func CheckName(name string) error { return checkName(name, MaxName) }

func checkName(s string, most int) error {
	ok := len(s) >= 1 && len(s) <= most && s[0] != '-' && s[len(s)-1] != '-'
	for i := 0; ok && i < len(s); i++ {
		ok = s[i] == '-' || '0' <= s[i] && s[i] <= '9' || 'a' <= s[i] && s[i] <= 'z'
	}
	if !ok {
		return fmt.Errorf("%q: expected 1 to %d characters a-z, 0-9 and -, neither the first nor the last of them -",
			clip(s), most)
	}
	return nil
}

// IDOf makes an id of any text, for example of a host's name: in lower case, every other character replaced by -, and
// at most `most` long.
func IDOf(text string, most int) string {
	id := strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' || 'a' <= r && r <= 'z' {
			return r
		}
		return '-'
	}, strings.ToLower(text))
	id = strings.Trim(id[:min(len(id), most)], "-")
	if id == "" {
		return "host"
	}
	return id
}

// Socket returns the name of the socket in an address unix:NAME.sock, where NAME is as an id: it is in the directory of
// its cluster's sockets, and leads nowhere else.
func Socket(address string) (name string, ok bool) {
	name, unix := strings.CutPrefix(address, "unix:")
	id, ok := strings.CutSuffix(name, ".sock")
	return name, unix && ok && CheckID(id) == nil
}

// CheckAddress says what is wrong with an address that other processes are to dial, or returns nil. A name is not
// looked up.
func CheckAddress(address string) error {
	if _, ok := Socket(address); ok {
		return nil
	}
	at := strings.LastIndexByte(address, ':')
	if at < 1 || len(address) > maxAddress {
		return fmt.Errorf("%q: expected host:port", clip(address))
	}
	host, port := address[:at], address[at+1:]
	if inner, ok := strings.CutPrefix(host, "["); ok { // IPv6
		host, ok = strings.CutSuffix(inner, "]")
		if !ok || strings.ContainsAny(host, "[]") {
			return fmt.Errorf("%q: expected host:port, IPv6 as [host]:port", clip(address))
		}
	} else if strings.ContainsRune(host, ':') {
		return fmt.Errorf("%q: expected host:port, IPv6 as [host]:port", clip(address))
	}
	for i := range len(host) {
		if c := host[i]; !strings.ContainsRune("-._:%", rune(c)) && !('0' <= c && c <= '9') &&
			!('a' <= c && c <= 'z') && !('A' <= c && c <= 'Z') {
			return fmt.Errorf("%q: %q cannot be in a host's name", clip(address), c)
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return fmt.Errorf("%q: expected host:port with a port from 1 to 65535", clip(address))
	}
	return nil
}

// clip is as much of a bad value as an error shows.
func clip(s string) string { return s[:min(len(s), 80)] }

// within says that a number is out of its range.
func within[T int | int64](what string, n, least, most T) error {
	if n < least || n > most {
		return fmt.Errorf("%s %d: expected %d to %d", what, n, least, most)
	}
	return nil
}

// text returns an error for a text that is too long or not UTF-8. Code that prints it must Clean it.
func text(what, s string, most int) error {
	if len(s) > most || !utf8.ValidString(s) {
		return fmt.Errorf("%s of %d bytes: expected at most %d, of UTF-8", what, len(s), most)
	}
	return nil
}

// plain returns an error for a text that JSON or a person would read in another length.
func plain(what, s string) error {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || strings.IndexByte(`"\&<>`, c) >= 0 {
			return fmt.Errorf("%s has the byte %#x: expected printable ASCII, without quotes, brackets, & and \\", what,
				c)
		}
	}
	return nil
}

func named(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s %w", what, err)
	}
	return nil
}

// first returns the first error, or nil.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func checkUUID(uuid string) error {
	if uuid == "" {
		return errors.New("the job's UUID is missing")
	}
	return text("the job's UUID", uuid, maxWord)
}

// Validate reports the first invalid field.
func (j Job) Validate() error {
	return first(checkUUID(j.UUID), named("spec:", j.Spec.Validate()), text("backend", j.Backend, maxWord),
		text("numerics", j.Numerics, maxWord), text("numerics_parts", j.NumericsParts, maxParts),
		within("checkpoint_every", j.CheckpointEvery, 0, MaxStep), within("generation", j.Generation, 0, MaxStep),
		within("durable_step", j.DurableStep, 0, MaxStep))
}

// Validate reports the first invalid field. Another protocol is not invalid: Speaks
// reports it.
func (m Member) Validate() error {
	return first(named("id", CheckID(m.ID)), checkUUID(m.Job), named("address", CheckAddress(m.Address)),
		text("http", m.HTTP, maxAddress), text("host", m.Host, maxAddress), within("pid", m.PID, 0, 1<<31-1),
		within("parallelism", m.Parallelism, 0, MaxPeers),
		text("backend", m.Backend, maxWord), text("numerics", m.Numerics, maxWord),
		text("numerics_parts", m.NumericsParts, maxParts), checkKeys(m.Keys))
}

// checkKeys bounds the keys of a member.
func checkKeys(keys []string) error {
	if len(keys) > 2 {
		return fmt.Errorf("%d keys: expected at most 2", len(keys))
	}
	for _, k := range keys {
		if err := first(text("a key", k, maxKey), plain("a key", k)); err != nil {
			return err
		}
	}
	return nil
}

// Speaks returns nil if the member's protocol is this process's, else an error that says what to do.
func (m Member) Speaks() error {
	if m.Protocol != Protocol {
		return fmt.Errorf("it speaks protocol %d, the coordinator %d: start it from the same build of evenweave",
			m.Protocol, Protocol)
	}
	return nil
}

// Validate reports the first invalid field. Every method of a valid world, and a shift by its Backoff, returns
// without a panic.
func (w World) Validate() error {
	err := first(checkUUID(w.Job), within("generation", w.Generation, 1, MaxStep),
		within("since", w.Since, 0, w.Generation),
		within("floor", w.DurableStep, 0, MaxStep), within("patience", w.Backoff, 0, MaxBackoff),
		within("number of peers", len(w.Peers), 0, MaxPeers), text("reason", w.Reason, maxText))
	if err != nil {
		return err
	}
	if w.Coordinator != "" {
		if err := CheckAddress(w.Coordinator); err != nil {
			return named("coordinator", err)
		}
	}
	seen := make(map[string]bool, len(w.Peers))
	for rank, p := range w.Peers {
		if err := first(named("id", CheckID(p.ID)), named("address", CheckAddress(p.Address))); err != nil {
			return fmt.Errorf("peer %d: %w", rank, err)
		}
		if seen[p.ID] {
			return fmt.Errorf("peer %d: %q is in the world twice", rank, p.ID)
		}
		seen[p.ID] = true
	}
	for id, keys := range w.Keys {
		if !seen[id] {
			return fmt.Errorf("keys: %q is not in the world", clip(id))
		}
		if err := checkKeys(keys); err != nil {
			return fmt.Errorf("keys of %q: %w", id, err)
		}
	}
	for _, id := range w.Fresh {
		if !seen[id] {
			return fmt.Errorf("fresh: %q is not in the world", id)
		}
	}
	for what, peers := range map[string][]Peer{"away": w.Away, "doubted": w.Doubted} {
		if err := within("number of members that are "+what, len(peers), 0, MaxPeers); err != nil {
			return err
		}
		for _, p := range peers {
			if err := first(CheckID(p.ID), CheckAddress(p.Address)); err != nil {
				return named(what, err)
			}
		}
	}
	if err := within("number of dismissed members", len(w.Dismissed), 0, MaxPeers); err != nil {
		return err
	}
	for id, reason := range w.Dismissed {
		if err := first(CheckID(id), text("reason", reason, maxText)); err != nil {
			return named("dismissed", err)
		}
	}
	return nil
}

// Validate reports the first invalid field.
func (l Leader) Validate() error {
	return first(named("id", CheckID(l.ID)), named("address", CheckAddress(l.Address)),
		text("http", l.HTTP, maxAddress), text("host", l.Host, maxAddress), within("pid", l.PID, 0, 1<<31-1))
}

// Validate reports the first invalid field.
func (d Done) Validate() error {
	return first(checkUUID(d.Job), within("generation", d.Generation, 0, MaxStep), within("step", d.Step, 0, MaxStep),
		text("fingerprint", d.Fingerprint, maxWord), text("checkpoint", d.Checkpoint, maxText),
		text("failure", d.Failure, maxText))
}

package cluster

// keys names every key of one job; no other file knows them.
type keys struct{ prefix string }

func (k keys) all() string             { return k.prefix + "/" }
func (k keys) job() string             { return k.prefix + "/job" }
func (k keys) world() string           { return k.prefix + "/world" }
func (k keys) done() string            { return k.prefix + "/done" }
func (k keys) workers() string         { return k.prefix + "/workers" }
func (k keys) members() string         { return k.prefix + "/members/" }
func (k keys) member(id string) string { return k.prefix + "/members/" + id }
func (k keys) election() string        { return k.prefix + "/leader" }

// sealed are the keys of the coordinator's records.
func (k keys) sealed() [3]string { return [3]string{k.job(), k.world(), k.done()} }

package allreduce

// Waiting returns the edge on which this member waits now.
func (r *Ring) Waiting() Edge {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.edge("")
}

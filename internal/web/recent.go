package web

// recent keeps the newest items of a list and counts all.
type recent[T any] struct {
	items []T
	limit int
	total int // of all that were ever added
}

func (r *recent[T]) add(item T) {
	r.total++
	if len(r.items) >= r.limit+r.limit/4 { // in steps, so that adding costs little
		r.items = append(r.items[:0], r.items[len(r.items)-r.limit+1:]...)
	}
	r.items = append(r.items, item)
}

// newest are the items within the limit.
func (r *recent[T]) newest() []T { return r.items[max(0, len(r.items)-r.limit):] }

// last is the newest item; nil if there is none.
func (r *recent[T]) last() *T {
	if len(r.items) == 0 {
		return nil
	}
	return &r.items[len(r.items)-1]
}

// part is what a browser lacks of a list: Items follow those that it has, of which it keeps the newest Keep.
type part[T any] struct {
	Keep  int `json:"keep"`
	Total int `json:"total"`
	Items []T `json:"items"`
}

// since returns what was added after the first `seen` items, and how many there are now; nil if that is nothing.
func (r *recent[T]) since(seen int) (*part[T], int) {
	items := r.newest()
	if lacking := r.total - seen; lacking < len(items) {
		items = items[len(items)-max(0, lacking):]
	}
	if len(items) == 0 {
		return nil, r.total
	}
	return &part[T]{r.limit, r.total, append([]T(nil), items...)}, r.total
}

// refill puts back what an earlier process kept.
func (r *recent[T]) refill(p *part[T]) {
	if p == nil {
		return
	}
	for _, item := range p.Items[max(0, len(p.Items)-r.limit):] {
		r.add(item)
	}
	r.total = max(r.total, p.Total)
}

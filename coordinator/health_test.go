package coordinator

import (
	"testing"
	"time"
)

func TestHealthFailsWhenTheTermIsStuck(t *testing.T) {
	var v health
	now := time.Now()
	if _, ok := v.check(now); !ok {
		t.Error("not healthy before it leads")
	}
	v.does("leading", leadingLimit)
	if line, ok := v.check(now.Add(leadingLimit / 2)); !ok {
		t.Error(line)
	}
	if line, ok := v.check(time.Now().Add(leadingLimit + time.Second)); ok {
		t.Errorf("healthy though stuck: %q", line)
	}
	v.does("campaigning", 0)
	if line, ok := v.check(now.Add(time.Hour)); !ok {
		t.Errorf("a coordinator that stands by may do so for ever: %q", line)
	}
}

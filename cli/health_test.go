package cli

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthAsksThePage(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			http.Error(w, "no coordinator leads", http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	for _, address := range []string{"127.0.0.1:" + port, "0.0.0.0:" + port, ":" + port} {
		if err := askHealth(t.Context(), t.Output(), address, "/healthz"); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	err := askHealth(t.Context(), t.Output(), "127.0.0.1:"+port, "/readyz")
	if err == nil || !strings.Contains(err.Error(), "no coordinator leads") {
		t.Errorf("got %v, want what the page says", err)
	}
	if err := askHealth(t.Context(), t.Output(), "8080", "/healthz"); !errors.As(err, &usageError{}) {
		t.Errorf("got %v, want bad usage", err)
	}
}

package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// healthCommand is for container engines: an image without a shell has no other program that asks for a page.
func healthCommand() *cobra.Command {
	var web string
	var ready bool
	cmd := &cobra.Command{
		Use: "health", Hidden: true, Args: noArgs, Short: "Ask a coordinator or worker on this machine whether it " +
			"is healthy",
		RunE: func(cmd *cobra.Command, _ []string) error {
			page := "/healthz"
			if ready {
				page = "/readyz"
			}
			return askHealth(cmd.Context(), cmd.OutOrStdout(), web, page)
		},
	}
	cmd.Flags().StringVar(&web, "http", "127.0.0.1:8080", "address of its status pages")
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether it is ready instead")
	return cmd
}

// askHealth prints what the page says; an error unless it says yes.
func askHealth(ctx context.Context, out io.Writer, address, page string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return usagef("--http %q: %v", address, err)
	}
	// the variable holds the address that the process listens at
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+page, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", answer.Status, strings.TrimSpace(string(body)))
	}
	_, err = out.Write(body)
	return err
}

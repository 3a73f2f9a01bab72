// Rigtool holds what the cluster's scripts need beyond the peers:
//
//	rigtool image [flags] ROOTFS NAME LAYOUT  makes an OCI layout of a folder
//	rigtool htpasswd USER PASSWORD            prints a bcrypt htpasswd line
//	rigtool referrers ADDRESS                 serves a registry with the referrers API
package main

import (
	"fmt"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/registry"
	"golang.org/x/crypto/bcrypt"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "rigtool:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) > 0 && args[0] == "image":
		return image(args[1:])
	case len(args) == 3 && args[0] == "htpasswd":
		hash, err := bcrypt.GenerateFromPassword([]byte(args[2]), bcrypt.MinCost)
		if err != nil {
			return err
		}
		fmt.Printf("%s:%s\n", args[1], hash)
		return nil
	case len(args) == 2 && args[0] == "referrers":
		// Content is kept in memory: it is gone when the cluster goes down.
		return http.ListenAndServe(args[1], registry.New(registry.WithReferrersSupport(true)))
	}
	return fmt.Errorf("unknown arguments %q", args)
}

// Command argocd is one of the official Argo CD components, chosen by ARGOCD_BINARY_NAME or its own name; as `lua` it runs
// scripts on Argo CD's own engine.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	controller "github.com/argoproj/argo-cd/v3/cmd/argocd-application-controller/commands"
	reposerver "github.com/argoproj/argo-cd/v3/cmd/argocd-repo-server/commands"
	server "github.com/argoproj/argo-cd/v3/cmd/argocd-server/commands"
	cli "github.com/argoproj/argo-cd/v3/cmd/argocd/commands"
	"github.com/argoproj/argo-cd/v3/util/grpc"
	"github.com/argoproj/argo-cd/v3/util/log"
)

func main() {
	klog.SetLogger(log.NewLogrusLogger(log.NewWithCurrentConfig()))
	grpc.DisableSRVLookups()
	name := filepath.Base(os.Args[0])
	if v := os.Getenv("ARGOCD_BINARY_NAME"); v != "" {
		name = v
	}
	var c *cobra.Command
	switch name {
	case "lua":
		runScripts(os.Stdin, os.Stdout)
		return
	case "argocd-application-controller":
		c = controller.NewCommand()
	case "argocd-repo-server":
		c = reposerver.NewCommand()
	case "argocd-server":
		c = server.NewCommand()
	default:
		c = cli.NewCommand()
		c.SilenceErrors, c.SilenceUsage = true, true
	}
	if err := c.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// The kubelet of k8s.io/kubernetes, whose own module cannot be installed from outside: it replaces its parts by folders.
package main

import (
	"context"
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	os.Exit(cli.Run(app.NewKubeletCommand(context.Background())))
}

// Command gitops-health reports the health that GitOps tools derive from an object. For Argo CD, it runs Argo CD's own
// engine with the health checks of a folder. For Flux, it runs kstatus, which Flux uses to wait for objects. The tests
// use this command to run the health checks.
//
//	gitops-health judge -customizations FOLDER [FILE...]   print one JSON line for each object of the files or of stdin
//	gitops-health test -customizations FOLDER              run every health_test.yaml of the folder, as Argo CD does
//
// FOLDER has the layout of Argo CD's resource_customizations: GROUP/KIND/health.lua, without wildcards.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "gitops-health: %v\n", err)
		os.Exit(1)
	}
}

func run(arguments []string, input io.Reader, output io.Writer) error {
	usage := errors.New("usage: gitops-health judge|test -customizations FOLDER [FILE...]")
	if len(arguments) == 0 {
		return usage
	}
	flags := flag.NewFlagSet("gitops-health "+arguments[0], flag.ContinueOnError)
	folder := flags.String("customizations", "", "folder with GROUP/KIND/health.lua")
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	if *folder == "" {
		return usage
	}
	switch arguments[0] {
	case "judge":
		return judgeAll(*folder, flags.Args(), input, output)
	case "test":
		return testAll(*folder, output)
	default:
		return usage
	}
}

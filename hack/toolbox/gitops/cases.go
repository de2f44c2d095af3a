package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/gitops-engine/pkg/health"
	"sigs.k8s.io/yaml"
)

// cases is the content of a health_test.yaml.
type cases struct {
	Tests []struct {
		InputPath    string              `json:"inputPath"`
		HealthStatus health.HealthStatus `json:"healthStatus"`
	} `json:"tests"`
}

// testAll runs all cases of the folder, as Argo CD's own util/lua/health_test.go does for the health checks of Argo CD.
// Prints each case that passed. Returns an error with the other cases.
func testAll(folder string, output io.Writer) error {
	scripts, err := filepath.Glob(filepath.Join(folder, "*", "*", "health.lua"))
	if err != nil {
		return err
	}
	if len(scripts) == 0 {
		return fmt.Errorf("there is no GROUP/KIND/health.lua in %s", folder)
	}
	var problems []error
	count := 0
	for _, path := range scripts {
		passed, err := testScript(path, output)
		problems = append(problems, err)
		count += passed
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	fmt.Fprintf(output, "%d cases of %d health checks passed\n", count, len(scripts))
	return nil
}

// testScript runs the cases of one script. Every file in its testdata must be the input of a case. Returns the number
// of cases that passed.
func testScript(path string, output io.Writer) (int, error) {
	folder := filepath.Dir(path)
	script, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(filepath.Join(folder, "health_test.yaml"))
	if err != nil {
		return 0, err
	}
	var all cases
	if err := yaml.UnmarshalStrict(text, &all); err != nil {
		return 0, fmt.Errorf("%s/health_test.yaml: %w", folder, err)
	}
	inputs, err := filepath.Glob(filepath.Join(folder, "testdata", "*"))
	if err != nil {
		return 0, err
	}
	unused := make(map[string]bool, len(inputs))
	for _, input := range inputs {
		unused[input] = true
	}
	passed := 0
	var problems []error
	for _, test := range all.Tests {
		input := filepath.Join(folder, test.InputPath)
		delete(unused, input)
		if err := testCase(string(script), input, test.HealthStatus); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", input, err))
			continue
		}
		passed++
		fmt.Fprintf(output, "ok %s/%s: %s\n", filepath.Base(folder), test.InputPath, test.HealthStatus.Status)
	}
	for input := range unused {
		problems = append(problems, fmt.Errorf("%s: no case of health_test.yaml has it as its inputPath", input))
	}
	return passed, errors.Join(problems...)
}

// testCase compares the script's result for one object with the expected result. Runs the script twice: with Lua's
// libraries, as Argo CD runs its own scripts, and without them, as Argo CD runs scripts of argocd-cm.
func testCase(script, input string, expected health.HealthStatus) error {
	file, err := os.Open(input)
	if err != nil {
		return err
	}
	defer file.Close()
	object, err := onlyObject(file)
	if err != nil {
		return err
	}
	if group := filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(input)))); object.GroupVersionKind().Group != group {
		return fmt.Errorf("the object is of group %s, the check for %s", object.GroupVersionKind().Group, group)
	}
	for _, openLibraries := range []bool{true, false} {
		result, err := lua.VM{UseOpenLibs: openLibraries}.ExecuteHealthLua(object, script)
		if err != nil {
			return err
		}
		if *result != expected {
			return fmt.Errorf("expected %q, %q; got %q, %q (with Lua's libraries: %t)",
				expected.Status, expected.Message, result.Status, result.Message, openLibraries)
		}
	}
	return nil
}

package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"consort.dev/consort/fault"
	"consort.dev/consort/manifest"
)

func newSchema(c *cli) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "schema [KIND]",
		Short: "Write JSON Schemas of manifests, for editors",
		Long: `Writes the JSON Schema of a kind, or with --dir those of all kinds into a folder.
Editors with the YAML language server check a manifest that begins with

  # yaml-language-server: $schema=PATH/consort.json`,
		Example: "  consort schema blueprint\n  consort schema --dir ~/.config/consort/schema",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case dir != "":
				return writeSchemas(dir)
			case len(args) == 0:
				return usage{errors.New("name a kind, or a folder with --dir")}
			}
			k, err := kind(args[0])
			if err != nil {
				return err
			}
			text, err := manifest.Schema(k.Kind)
			if err != nil {
				return err
			}
			_, err = c.out.Write(text)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "folder to write the schemas of all kinds to")
	return cmd
}

func writeSchemas(dir string) error {
	all, err := manifest.Schemas()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fault.Unavailable.Errorf("write schemas: %w", err)
	}
	for name, text := range all {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return fault.Unavailable.Errorf("write schemas: %w", err)
		}
	}
	return nil
}

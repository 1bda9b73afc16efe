// Starts the language server (`circuitdsl lsp`), and passes commands on to it. All that is known of specs is there.
import * as vscode from "vscode";
import { LanguageClient, LanguageClientOptions, ServerOptions } from "vscode-languageclient/node";

let client: LanguageClient | undefined;

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  context.subscriptions.push(
    vscode.commands.registerCommand("circuitdsl.verifyFile", verifyFile),
    vscode.commands.registerCommand("circuitdsl.restart", restart),
    vscode.workspace.onDidChangeConfiguration((event) => {
      if (event.affectsConfiguration("circuitdsl.command")) {
        void restart();
      }
    }),
  );
  await start();
}

export async function deactivate(): Promise<void> {
  await client?.stop();
}

async function start(): Promise<void> {
  const [command, ...args] = vscode.workspace.getConfiguration("circuitdsl").get<string[]>("command", []);
  if (!command) {
    void vscode.window.showErrorMessage("circuitdsl.command is empty: name the program that starts the server.");
    return;
  }
  const server: ServerOptions = { command, args };
  const options: LanguageClientOptions = {
    documentSelector: [{ language: "circ" }],
    synchronize: { fileEvents: vscode.workspace.createFileSystemWatcher("**/*.circ") },
  };
  client = new LanguageClient("circuitdsl", "circuitdsl", server, options);
  try {
    await client.start();
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    const hint = "install it with: pip install 'circuitdsl[lsp]', or set circuitdsl.command";
    void vscode.window.showErrorMessage(`The language server of circuitdsl does not start (${said}); ${hint}.`);
  }
}

async function restart(): Promise<void> {
  const old = client;
  client = undefined;
  await old?.dispose();
  await start();
}

async function verifyFile(): Promise<void> {
  const document = vscode.window.activeTextEditor?.document;
  if (document?.languageId === "circ") {
    await vscode.commands.executeCommand("circuitdsl.verify", document.uri.toString(), null);
  }
}

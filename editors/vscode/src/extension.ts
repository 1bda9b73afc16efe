// Starts the language server (`circuitdsl lsp`), and passes commands on to it. All that is known of specs is there.
import * as vscode from "vscode";
import {
  LanguageClient,
  LanguageClientOptions,
  Middleware,
  ProgressToken,
  ServerOptions,
  State,
  WorkDoneProgressCancelNotification,
} from "vscode-languageclient/node";

type Shown = { progress?: vscode.Progress<{ message?: string; increment?: number }>; percent: number; end: () => void };

let client: LanguageClient | undefined;
const shown = new Map<ProgressToken, Shown>();

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
    middleware: { handleWorkDoneProgress: showProgress },
  };
  client = new LanguageClient("circuitdsl", "circuitdsl", server, options);
  client.onDidChangeState((change) => {
    if (change.newState !== State.Running) {
      shown.forEach((work) => work.end()); // nobody tells their end any more
      shown.clear();
    }
  });
  try {
    await client.start();
  } catch {
    void whatToDo(); // the client itself says why
  }
}

async function whatToDo(): Promise<void> {
  const settings = "Open Settings";
  const hint = "Install the language server with: pip install 'circuitdsl[lsp]'. Or say where it is: circuitdsl.command.";
  if ((await vscode.window.showErrorMessage(hint, settings)) === settings) {
    const where = vscode.env.remoteName ? "openRemoteSettings" : "openSettings"; // the machine that runs the server
    await vscode.commands.executeCommand(`workbench.action.${where}`, { query: "circuitdsl.command" });
  }
}

/** Shows work as a notification with a Cancel button. By itself the client uses the status bar, which has none. */
const showProgress: Middleware["handleWorkDoneProgress"] = (token, params, next) => {
  if (params.kind === "begin") {
    const work: Shown = { percent: 0, end: () => undefined };
    const ended = new Promise<void>((end) => (work.end = end)); // it may end before VS Code shows it
    shown.set(token, work);
    void vscode.window.withProgress(
      { location: vscode.ProgressLocation.Notification, cancellable: true, title: params.title },
      (progress, cancelled) => {
        work.progress = progress;
        cancelled.onCancellationRequested(() => {
          void client?.sendNotification(WorkDoneProgressCancelNotification.type, { token });
        });
        return ended;
      },
    );
    return;
  }
  const work = shown.get(token);
  if (params.kind === "report" && work?.progress) {
    const increment = Math.max((params.percentage ?? 0) - work.percent, 0);
    work.percent += increment;
    work.progress.report({ message: params.message, increment });
  } else if (params.kind === "end") {
    work?.end();
    shown.delete(token);
  }
  next(token, params);
};

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
